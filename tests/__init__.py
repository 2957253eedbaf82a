"""Nothing of ours is mocked: real keys, real databases, real HTTP; only the clock stands still."""

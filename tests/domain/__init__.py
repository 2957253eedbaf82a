"""The rules, one file each: tables of one wrong thing at a time, boundaries on both sides."""

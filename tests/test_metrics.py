"""What the metrics say: a histogram that adds up, and workers that count together."""

import subprocess
import sys
from pathlib import Path

import pytest

from maskinporten.metrics import Metrics

BUCKET = "maskinporten_token_seconds_bucket"
ANOTHER_WORKER = """
import sys
from pathlib import Path
from maskinporten.metrics import Metrics
worker = Metrics(Path(sys.argv[1]), refusals=["GRANT_SPENT"], methods=["private_key_jwt"])
worker.token_refused("GRANT_SPENT", 0.02)
worker.put("maskinporten_registry_revision", 6)
"""


def metrics(path: Path | None = None) -> Metrics:
    """Metrics of one worker."""
    return Metrics(path, refusals=["GRANT_SPENT"], methods=["private_key_jwt"])


@pytest.mark.parametrize(
    ("seconds", "below", "within"),
    [
        pytest.param(0.0, None, "0.001", id="at once"),
        pytest.param(0.0025, "0.001", "0.0025", id="exactly a bound"),
        pytest.param(0.00250001, "0.0025", "0.005", id="just above it"),
        pytest.param(2.5, "1.0", "2.5", id="the last bound"),
        pytest.param(2.6, "2.5", "+Inf", id="above all bounds"),
    ],
)
def test_an_answer_stands_in_its_bucket_and_all_above(
    seconds: float, below: str | None, within: str
) -> None:
    """`le` means less or equal, and buckets are cumulative."""
    worker = metrics()
    worker.token_issued("private_key_jwt", seconds)

    assert below is None or worker.value(BUCKET, f'le="{below}"') == 0
    assert worker.value(BUCKET, f'le="{within}"') == 1
    assert worker.value(BUCKET, 'le="+Inf"') == 1
    assert worker.value("maskinporten_token_seconds_count") == 1
    assert worker.value("maskinporten_token_seconds_sum") == seconds
    worker.close()


def test_workers_of_a_node_count_together(tmp_path: Path) -> None:
    """Each into its own row; whoever is asked adds them up, and a dead worker's count stays."""
    path = tmp_path / "metrics"
    path.touch()
    worker = metrics(path)
    worker.token_issued("private_key_jwt", 0.003)
    worker.put("maskinporten_registry_revision", 7)
    subprocess.run([sys.executable, "-c", ANOTHER_WORKER, path], check=True)
    lines = worker.exposition().splitlines()
    worker.close()

    assert 'maskinporten_tokens_issued_total{client_amr="private_key_jwt"} 1' in lines
    assert 'maskinporten_tokens_refused_total{reason="GRANT_SPENT"} 1' in lines
    assert f'{BUCKET}{{le="0.0025"}} 0' in lines
    assert f'{BUCKET}{{le="0.005"}} 1' in lines
    assert f'{BUCKET}{{le="0.025"}} 2' in lines
    assert f'{BUCKET}{{le="+Inf"}} 2' in lines
    assert "maskinporten_token_seconds_count 2" in lines
    assert "maskinporten_token_seconds_sum 0.023" in lines
    assert "maskinporten_registry_revision 7" in lines

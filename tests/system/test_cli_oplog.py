"""--op-log: every operation in the columns that s3dlio's and warp's tools read, whatever becomes of the command."""
import cli as cli_module
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))


def test_a_log_that_cannot_be_made_is_an_error_and_nothing_is_done(cli, http):
    ran = cli.to(http())("--op-log", "/dev/null/x.zst", "health").failed(cli_module.USAGE)
    assert ran.err == "s3dlio-cli: --op-log: cannot create /dev/null/x.zst: Not a directory\n"


def test_a_log_that_is_not_whole_fails_the_command(cli, http):
    ran = cli.to(http())("--op-log", "/dev/full", "health").failed(cli_module.FAILED)
    assert ran.err == "s3dlio-cli: --op-log: /dev/full is not whole: No space left on device\n"


def test_a_log_without_operations_has_its_header(cli, http, tmp_path):
    cli.to(http())("--op-log", tmp_path / "log.tsv.zst", "health").ok()
    assert cli_module.oplog(tmp_path / "log.tsv.zst") == []

"""One server a module, on a data directory of its own; after the module's last test it is stopped, and
nothing that was stored or handed out in clear may be in any file that it leaves."""

import botocore.exceptions
import pytest

from harness import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory, request):
    server = Server(tmp_path_factory.mktemp(request.module.__name__)).start()
    yield server
    if server.process:
        server.stop()
    server.assert_no_leaks()


@pytest.fixture
def own_server(tmp_path):
    """A server for one test alone, not started."""
    server = Server(tmp_path)
    yield server
    server.kill()
    if server.data_dir.exists():
        server.assert_no_leaks()


@pytest.fixture(scope="module")
def s3(server):
    return server.client("s3")


@pytest.fixture(scope="module")
def kms(server):
    return server.client("kms")


@pytest.fixture(scope="module")
def ec2(server):
    return server.client("ec2")


@pytest.fixture
def bucket(s3, request):
    """A new bucket, named after the test."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()
    name = "".join(c for c in name if c.isalnum() or c == "-")[5:50].strip("-") + "-b"
    s3.create_bucket(Bucket=name)
    return name


class Refused:
    """What a refused call said."""

    def __init__(self, error):
        self.code = error.response["Error"]["Code"]
        self.message = error.response["Error"].get("Message", "")
        self.status = error.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture
def refused():
    """refused("Code", 400, client.operation, **arguments): the call must fail with this code and status."""

    def check(code, status, call, *args, **kwargs):
        try:
            answer = call(*args, **kwargs)
        except botocore.exceptions.ClientError as error:
            said = Refused(error)
            assert (said.code, said.status) == (code, status), f"{said.status} {said.code}: {said.message}"
            return said
        raise AssertionError(f"was not refused; expected {status} {code}, got {answer}")

    return check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for server in Server.running:
            report.sections.append((f"log of the server on {server.aws_port}", server.log_tail()))
    return report

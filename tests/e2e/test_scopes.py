"""Several accounts and regions behind one endpoint, with stock clients."""

import pytest
from botocore.exceptions import ClientError

from harness import Server
from test_start import refused_start

ONE, TWO = "123456789012", "210987654321"
HERE, THERE = "us-east-1", "eu-west-1"
CONFIG = f'accounts = ["{ONE}", "{TWO}"]\nregions = ["{HERE}", "{THERE}"]\n'


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path, config=CONFIG).start()
    yield server
    server.stop()


def code(call, **arguments):
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return raised.value.response["Error"]["Code"]


def test_each_account_and_region_has_keys_of_its_own(server):
    made = {}
    for account, profile in ((ONE, "default"), (TWO, TWO)):
        assert server.client("sts", profile=profile).get_caller_identity()["Account"] == account
        for region in (HERE, THERE):
            kms = server.client("kms", region=region, profile=profile)
            arn = kms.create_key()["KeyMetadata"]["Arn"]
            assert arn.startswith(f"arn:aws:kms:{region}:{account}:key/")
            assert [key["KeyArn"] for key in kms.list_keys()["Keys"]] == [arn]
            made[account, region] = arn
    kms = server.client("kms")
    assert code(kms.describe_key, KeyId=made[ONE, THERE]) == "NotFoundException"
    assert code(kms.describe_key, KeyId=made[TWO, HERE]) == "AccessDeniedException"


def test_an_sdk_is_led_to_the_region_of_a_bucket(server):
    here, there = server.client("s3"), server.client("s3", region=THERE)
    here.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": THERE})
    there.put_object(Bucket="elsewhere", Key="k", Body=b"body")
    assert here.get_bucket_location(Bucket="elsewhere")["LocationConstraint"] == THERE
    assert here.get_object(Bucket="elsewhere", Key="k")["Body"].read() == b"body", "boto3 follows the redirect"
    assert [bucket["Name"] for bucket in here.list_buckets()["Buckets"]] == ["elsewhere"]
    other = server.client("s3", profile=TWO)
    assert code(other.get_object, Bucket="elsewhere", Key="k") == "AccessDenied"
    assert code(other.create_bucket, Bucket="elsewhere") == "BucketAlreadyExists"


def test_volumes_are_their_accounts_and_regions_and_exported_by_one_server(server):
    ids = []
    for profile in ("default", TWO):
        for region in (HERE, THERE):
            ec2 = server.client("ec2", region=region, profile=profile)
            assert {r["RegionName"] for r in ec2.describe_regions()["Regions"]} == {HERE, THERE}
            made = ec2.create_volume(Size=1, Encrypted=True, AvailabilityZone=f"{region}a")["VolumeId"]
            assert [v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]] == [made]
            ids.append(made)
    assert len(set(ids)) == 4


def test_an_account_that_has_something_is_not_left_out(tmp_path):
    server = Server(tmp_path, config=CONFIG).start()
    server.client("kms", region=THERE, profile=TWO).create_key()
    server.stop()
    less = Server(tmp_path, config=f'accounts = ["{ONE}"]\nregions = ["{THERE}"]\n')
    line = refused_start(less)
    assert f"keys of account {TWO} in region {THERE}" in line

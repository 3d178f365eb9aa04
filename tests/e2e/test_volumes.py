"""Volumes through EC2's API: create, describe, delete, and what they cannot do."""

import sqlite3
import uuid

import pytest

from harness import ACCOUNT, REGION, Server, run

AZ = f"{REGION}a"


def describe(ec2, *ids):
    return ec2.describe_volumes(VolumeIds=list(ids))["Volumes"]


def test_a_sealed_volume_under_the_managed_key(ec2, kms):
    made = ec2.create_volume(Size=1, AvailabilityZone=AZ, VolumeType="gp3", Encrypted=True)
    assert made["VolumeId"].startswith("vol-") and made["Size"] == 1 and made["Encrypted"] is True
    managed = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]
    assert managed["KeyManager"] == "AWS"
    found = describe(ec2, made["VolumeId"])[0]
    assert found["State"] == "available" and found["KmsKeyId"] == managed["Arn"]
    assert (found["Size"], found["AvailabilityZone"], found["VolumeType"], found["Encrypted"]) == (1, AZ, "gp3", True)


def test_a_sealed_volume_under_a_key_of_ones_own_by_every_form(ec2, kms):
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/disks", TargetKeyId=key["KeyId"])
    for form in (key["KeyId"], key["Arn"], "alias/disks", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/disks"):
        made = ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True, KmsKeyId=form)
        assert describe(ec2, made["VolumeId"])[0]["KmsKeyId"] == key["Arn"]


def test_a_plain_volume_says_so(server, ec2):
    with server.plain_volumes():
        made = ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=False)
    found = describe(ec2, made["VolumeId"])[0]
    assert found["Encrypted"] is False and "KmsKeyId" not in found


def test_tags_and_their_export_name(server, ec2):
    name = f"disk-{uuid.uuid4()}"
    tags = [{"Key": "Name", "Value": name}, {"Key": "team", "Value": "a & <b>"}]
    made = ec2.create_volume(
        Size=1, AvailabilityZone=AZ, Encrypted=True, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
    )
    found = describe(ec2, made["VolumeId"])[0]
    assert sorted(found["Tags"], key=str) == sorted(tags, key=str)
    assert run("nbdinfo", "--size", server.uri(name)).stdout.strip() == str(1 << 30)
    ec2.create_volume(
        Size=1, AvailabilityZone=AZ, Encrypted=True, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
    )
    assert run("nbdinfo", "--size", server.uri(name), check=False).returncode != 0, "the name is not unique any more"
    assert run("nbdinfo", "--size", server.uri(made["VolumeId"])).stdout.strip() == str(1 << 30)


def test_the_same_token_makes_one_volume(ec2, refused):
    token = str(uuid.uuid4())
    first = ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True, ClientToken=token)["VolumeId"]
    assert ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True, ClientToken=token)["VolumeId"] == first
    refused("IdempotentParameterMismatch", 400, ec2.create_volume, Size=2, AvailabilityZone=AZ, Encrypted=True, ClientToken=token)


def test_encryption_is_on_by_default_until_it_is_disabled(server, ec2, kms):
    """The account's switch, its default key, and what they leave behind."""
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    for said in ({}, {"Encrypted": False}):
        made = ec2.create_volume(Size=1, AvailabilityZone=AZ, **said)
        assert made["Encrypted"] is True, f"{said}: encryption by default goes before"
        managed = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"]
        assert describe(ec2, made["VolumeId"])[0]["KmsKeyId"] == managed

    key = kms.create_key()["KeyMetadata"]["Arn"]
    assert ec2.modify_ebs_default_kms_key_id(KmsKeyId=key)["KmsKeyId"] == key
    assert ec2.create_volume(Size=1, AvailabilityZone=AZ)["KmsKeyId"] == key
    assert ec2.reset_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    assert ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True)["KmsKeyId"] == managed

    assert ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    try:
        assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
        assert ec2.create_volume(Size=1, AvailabilityZone=AZ)["Encrypted"] is False
        assert "encryption by default was disabled" in server.log_text()
    finally:
        assert ec2.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"] is True
    changes = [r["operation"] for r in server.audit_records() if r["outcome"] == "Success" and "Ebs" in r["operation"]]
    for operation in ("Disable", "Enable"):
        assert f"{operation}EbsEncryptionByDefault" in changes
    assert {"ModifyEbsDefaultKmsKeyId", "ResetEbsDefaultKmsKeyId"} <= set(changes)


def test_required_encryption_forbids_plaintext_for_good(tmp_path, refused):
    own_server = Server(tmp_path, config="[volumes]\nrequire_encryption = true\n").start()
    ec2 = own_server.client("ec2")
    refused("OperationNotPermitted", 400, ec2.disable_ebs_encryption_by_default)
    refused("OperationNotPermitted", 400, ec2.create_volume, Size=1, AvailabilityZone=AZ, Encrypted=False)
    assert ec2.create_volume(Size=1, AvailabilityZone=AZ)["Encrypted"] is True
    done = own_server.sealgate("volume", "create", "--size", "1", "--unencrypted", check=False)
    assert done.returncode != 0 and "OperationNotPermitted" in done.stderr
    own_server.stop()


def test_listing_in_pages_and_by_filter(server, ec2):
    with server.plain_volumes():
        made = {ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=n % 2 == 0)["VolumeId"] for n in range(7)}
    pages = list(ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5}))
    listed = [v["VolumeId"] for p in pages for v in p["Volumes"]]
    assert made <= set(listed) and len(listed) == len(set(listed)) and len(pages) > 1
    plain = ec2.describe_volumes(Filters=[{"Name": "encrypted", "Values": ["false"]}], VolumeIds=sorted(made))["Volumes"]
    assert len(plain) == 3


def test_what_does_not_exist(ec2, refused):
    refused("InvalidVolume.NotFound", 400, ec2.describe_volumes, VolumeIds=["vol-00000000000000000"])
    refused("InvalidVolume.NotFound", 400, ec2.delete_volume, VolumeId="vol-00000000000000000")
    with pytest.raises(ec2.exceptions.ClientError):
        ec2.delete_volume(VolumeId="../../credentials")


@pytest.mark.parametrize(
    "wrong",
    [
        dict(Size=0), dict(Size=10_000_000), dict(Size=1, KmsKeyId=str(uuid.UUID(int=7))), dict(Size=1, Encrypted=False, KmsKeyId="alias/aws/ebs"),
        dict(Size=1, VolumeType="floppy"), dict(),
    ],
    ids=str,
)
def test_what_cannot_be_created(ec2, wrong):
    before = len(ec2.describe_volumes()["Volumes"])
    with pytest.raises(ec2.exceptions.ClientError) as error:
        ec2.create_volume(AvailabilityZone=AZ, **{"Encrypted": True, **wrong})
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert len(ec2.describe_volumes()["Volumes"]) == before


def test_a_deleted_volume_is_gone_with_its_files(server, ec2, refused):
    volume = server.volume()
    run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 4M", server.uri(volume))
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1})
    ec2.delete_volume(VolumeId=volume)
    refused("InvalidVolume.NotFound", 400, ec2.describe_volumes, VolumeIds=[volume])
    assert run("nbdinfo", "--size", server.uri(volume), check=False).returncode != 0
    assert not [p for p in server.data_dir.rglob("*") if volume in p.name]
    server.restart()
    refused("InvalidVolume.NotFound", 400, ec2.describe_volumes, VolumeIds=[volume])


def test_volumes_are_there_after_a_restart(server, ec2):
    before = sorted(ec2.describe_volumes()["Volumes"], key=lambda v: v["VolumeId"])
    volume = server.volume()
    run("qemu-io", "-f", "raw", "-c", "write -P 0x77 1M 1M", "-c", "flush", server.uri(volume))
    for again in ("stop", "kill"):
        getattr(server, again)()
        server.start()
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x77 1M 1M", "-c", "read -P 0 0 1M", server.uri(volume))
        after = sorted(ec2.describe_volumes()["Volumes"], key=lambda v: v["VolumeId"])
        assert [v for v in after if v["VolumeId"] != volume] == before


def test_the_command_line_client(server):
    made = server.aws(
        "ec2", "create-volume", "--size", "1", "--availability-zone", AZ, "--encrypted",
        "--tag-specifications", "ResourceType=volume,Tags=[{Key=Name,Value=cli}]",
    )
    listed = server.aws("ec2", "describe-volumes", "--filters", "Name=tag:Name,Values=cli")["Volumes"]
    assert [v["VolumeId"] for v in listed] == [made["VolumeId"]]
    server.aws("ec2", "delete-volume", "--volume-id", made["VolumeId"])
    done = server.aws("ec2", "describe-volumes", "--volume-ids", made["VolumeId"], check=False)
    assert done.returncode != 0 and "InvalidVolume.NotFound" in done.stderr


def test_a_lost_record_is_made_again_from_the_folder(own_server):
    server = own_server.start()
    ec2 = server.client("ec2")
    volume = ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True)["VolumeId"]
    gone = ec2.create_volume(Size=1, AvailabilityZone=AZ, Encrypted=True)["VolumeId"]
    ec2.delete_volume(VolumeId=gone)
    running = server.sealgate("doctor", "--rebuild", check=False)
    assert running.returncode != 0 and "must be stopped" in running.stderr
    server.stop()
    with sqlite3.connect(server.data_dir / "catalogue.db") as catalogue:
        catalogue.execute("DELETE FROM record WHERE tbl = 'volume'")
    catalogue.close()
    server.start()
    assert describe(server.client("ec2")) == []
    assert (server.data_dir / "volumes" / "quarantine" / volume).is_dir()
    server.stop()
    report = server.sealgate("doctor", "--rebuild").stdout
    assert volume in report and "rebuilt" in report and gone not in report
    server.start()
    assert [found["VolumeId"] for found in describe(server.client("ec2"))] == [volume]
    assert run("nbdinfo", "--size", server.uri(volume)).stdout.strip() == str(1 << 30)
    assert any("DoctorRebuild" in str(record) for record in server.audit_records())
    server.stop()


def test_a_destroyed_map_is_an_error_of_that_volume_and_repaired(server, ec2):
    volume, other = server.volume(), server.volume()
    run("qemu-io", "-f", "raw", "-c", "write -P 0x31 0 3M", "-c", "write -P 0x32 9M 4k", "-c", "flush", server.uri(volume))
    server.stop()

    def cli(*words):
        return server.sealgate(*words, check=False)

    assert cli("volume", "check", volume).returncode == 0
    folder = server.data_dir / "volumes" / volume
    for name in ("map.log", "map.log.copy"):
        (folder / name).write_bytes(b"\xff" * 8192)
    assert cli("volume", "check", volume).returncode != 0
    server.start()
    attached = run("qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", server.uri(volume), check=False)
    assert "sealgate volume repair" in attached.stderr, attached.stderr
    states = {v["VolumeId"]: v["State"] for v in ec2.describe_volumes()["Volumes"]}
    assert (states[volume], states[other]) == ("error", "available")
    assert describe(ec2, volume)[0]["State"] == "error"
    run("qemu-io", "-f", "raw", "-c", "write -P 1 0 4k", server.uri(other))
    server.stop()
    assert cli("volume", "repair", volume).returncode == 0
    assert cli("volume", "check", volume).returncode == 0
    server.start()
    run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x31 0 3M", "-c", "read -P 0x32 9M 4k", "-c", "read -P 0 4M 4M", server.uri(volume))

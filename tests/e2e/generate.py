#!/usr/bin/env python3
"""Writes the tables of requests that are generated from the public service models.

    tests/.cache/venv/bin/python tests/e2e/generate.py

The models are those of the botocore in this interpreter (requirements.txt says which); the generator
is `generate_model` of package `tests`. Only what is served has a table.
"""

import json
import subprocess
from pathlib import Path

import botocore.loaders

ROOT = Path(__file__).resolve().parent.parent.parent
TABLES = {"kms": ROOT / "crates/api/src/kms/model.rs", "ec2": ROOT / "crates/api/src/ec2/model.rs"}
# Of a service that is served in small part, the operations whose requests are checked against the model.
OPERATIONS = {
    "ec2": [
        "DisableEbsEncryptionByDefault",
        "EnableEbsEncryptionByDefault",
        "GetEbsDefaultKmsKeyId",
        "GetEbsEncryptionByDefault",
        "ModifyEbsDefaultKmsKeyId",
        "ResetEbsDefaultKmsKeyId",
    ]
}
CARGO = ["cargo", "run", "--quiet", "--release", "-p", "tests", "--bin", "generate_model"]


def model(service):
    """The newest public model of a service, with its members in their own order."""
    return botocore.loaders.Loader().load_service_model(service, "service-2")


def generate(service, command=CARGO, operations=None):
    """The Rust source for a service: of all its operations, or of those named."""
    if operations:
        command = [*command, "--", "--operations", ",".join(operations)]
    text = json.dumps(model(service)).encode()
    return subprocess.run(command, cwd=ROOT, input=text, stdout=subprocess.PIPE, check=True).stdout.decode()


if __name__ == "__main__":
    for service, path in TABLES.items():
        path.write_text(generate(service, operations=OPERATIONS.get(service)))
        print(path.relative_to(ROOT))

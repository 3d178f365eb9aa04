"""What is generated from the public service models and committed is what they say today."""

import pytest

import generate


@pytest.mark.parametrize("service", generate.TABLES)
def test_a_committed_table_is_current(service):
    path = generate.TABLES[service]
    assert path.read_text() == generate.generate(service, operations=generate.OPERATIONS.get(service)), f"{path} is out of date: run tests/e2e/generate.py"


@pytest.mark.parametrize("service", ["ec2", "iam", "secretsmanager", "ssm", "sts"])
def test_the_generator_takes_the_other_protocols_too(service):
    source = generate.generate(service)
    operations = generate.model(service)["operations"]
    assert all(f'model::Operation {{ name: "{name}", input: &' in source for name in operations)

"""The job templates: what they leave open is described, what they fill in is a job that the platform takes."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prefect.utilities.templating import apply_values

DOCKER = Path(__file__).resolve().parents[2] / "docker"
POOLS = DOCKER / "pools"
PLACEHOLDER = re.compile(r"\{\{\s*([^}\s]+)\s*\}\}")


def template(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((POOLS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def filled(name: str) -> Any:
    """The job of a run that changes nothing."""
    read = template(name)
    defaults = {key: value["default"] for key, value in read["variables"]["properties"].items() if "default" in value}
    values = {**defaults, "name": "brave-otter", "command": "prefect flow-run execute", "labels": {"a": "b"}}
    return apply_values(copy.deepcopy(read["job_configuration"]), values)


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_every_placeholder_is_described_and_every_default_is_valid(name: str) -> None:
    read = template(name)
    used = set(PLACEHOLDER.findall(json.dumps(read["job_configuration"])))
    secrets = {word for word in used if word.startswith("prefect.blocks.secret.")}
    # The worker adds the variables of a run to fixed ones by itself.
    assert (used - secrets) | {"env"} == set(read["variables"]["properties"])
    jsonschema.Draft202012Validator.check_schema(read["variables"])
    defaults = {key: value["default"] for key, value in read["variables"]["properties"].items() if "default" in value}
    jsonschema.validate(defaults, read["variables"])


def test_a_container_runs_without_rights() -> None:
    job = filled("docker")
    assert job["privileged"] is False
    create = job["container_create_kwargs"]
    assert (create["user"], create["cap_drop"], create["shm_size"]) == ("1000:1000", ["ALL"], "8g")


def test_a_job_of_kubernetes_is_one_that_it_takes() -> None:
    # As the worker does it: variables as a list of name and value, the command as a list of words.
    manifest = filled("kubernetes")["job_manifest"]
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container["env"] = [{"name": key, "value": value} for key, value in container["env"].items()]
    container["args"] = container["args"].split()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    validator.validate(manifest, "1.34", strict=True)


def test_the_slurm_job_trains_by_torchrun_and_records_the_output(tmp_path: Path) -> None:
    for name, words in (
        ("scontrol", 'printf "node7\\nnode8\\n"'),
        ("srun", 'shift; exec "$@"'),
        ("torchrun", 'echo "torchrun $*" >>calls'),
        ("dvc", 'echo "dvc $*" >>calls'),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{words}\n", encoding="utf-8")
        program.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41", "SLURM_GPUS_ON_NODE": "4"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([POOLS / "slurm.sh", "gfm"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "calls").read_text(encoding="utf-8").splitlines() == [
        "dvc repro --single-item teacher",
        "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-id 41 --rdzv-backend c10d --rdzv-endpoint node7:29500 "
        "--no-python gfm pretrain gfm",
        "dvc commit --force pretrain@gfm",
    ]
    assert subprocess.run([POOLS / "slurm.sh"], cwd=tmp_path, check=False, capture_output=True).returncode != 0


def test_compose_has_pinned_images_checks_loopback_ports_and_no_secret() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    once = {"objects-owner", "buckets", "deploy"}  # end by themselves
    for name, service in services.items():
        _, _, tag = service["image"].rpartition(":")
        assert tag and "latest" not in tag, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        ours = "build" in service
        assert name in once or ours or "healthcheck" in service, (
            name
        )  # ours: in the Dockerfile, and the worker's restart
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY", variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?set it in docker/\.env\}", value), f"{name}: {variable}"
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    example = (DOCKER / "env.example").read_text(encoding="utf-8")
    assert needed == {line.partition("=")[0] for line in example.splitlines() if line and not line.startswith("#")}
    assert not re.search(r"(PASSWORD|AUTH|KEY)=\S", example)


@pytest.mark.parametrize("file", ["train.Dockerfile", "services.Dockerfile"])
def test_images_are_pinned_and_run_as_a_plain_user(file: str) -> None:
    lines = (DOCKER / file).read_text(encoding="utf-8").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM") and "python" in line]
    assert bases and all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000"
    for words in (line.split() for line in lines if line.startswith("COPY") and "--from" not in line):
        assert all((DOCKER.parent / source).exists() for source in words[1:-1])

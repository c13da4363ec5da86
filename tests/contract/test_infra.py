"""What `infra/` says must be true of the code, of `constraints.txt`, and of the schemas that packages ship."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.installed import parse_constraints
from assay.settings import Settings
from tests.support.kuberay import KINDS

REPOSITORY = Path(__file__).parents[2]
INFRA = REPOSITORY / "infra"
BIN = Path(sys.executable).parent
PINS = parse_constraints((REPOSITORY / "constraints.txt").read_text())
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
KUBERNETES = "1.37.0"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
(CONFIG_MAP, CLUSTER), (JOB,) = (
    list(yaml.safe_load_all((INFRA / "kuberay" / name).read_text())) for name in ("raycluster.yaml", "rayjob.yaml")
)
LAUNCHER = yaml.safe_load((INFRA / "ray-cluster.yaml").read_text())
DOCKERFILE = (INFRA / "Dockerfile").read_text()
FILES = sorted(path for path in INFRA.rglob("*") if path.is_file())
SECRET = re.compile(r"PASSWORD|TOKEN$|SECRET|_KEY$|AUTH_STRING|ACCESS_KEY")


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


def pods() -> list[dict[str, Any]]:
    """The pod specs of all manifests."""
    return [group["template"]["spec"] for group in groups(CLUSTER)] + [JOB["spec"]["submitterPodTemplate"]["spec"]]


@cache
def help_of(*command: str) -> str:
    """What a program says that it takes."""
    program = [sys.executable, "-m", *command[1:]] if command[0] == "python" else [str(BIN / command[0]), *command[1:]]
    paths = os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run([*program, "--help"], capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where a command is, and its words: of services and their health checks, of the cluster file, of the job."""
    for name, service in SERVICES.items():
        if "entrypoint" in service:
            yield name, [*service["entrypoint"], *service["command"]]
        if "test" in service["healthcheck"]:
            yield f"{name} healthcheck", service["healthcheck"]["test"][1:]
    for kind in ("head", "worker"):
        for line in LAUNCHER[f"{kind}_start_ray_commands"]:
            yield f"ray-cluster.yaml {kind}", line.split()
    yield "rayjob.yaml", JOB["spec"]["entrypoint"].split()
    yield "Dockerfile", json.loads(re.findall(r"^HEALTHCHECK .*CMD (.*)$", DOCKERFILE, re.M)[0])


OURS = [(where, words) for where, words in commands() if words[0] in ("assay", "mlflow", "prefect", "ray")]


@pytest.mark.parametrize(("where", "words"), OURS, ids=[f"{where}-{words[0]}" for where, words in OURS])
def test_every_command_takes_what_it_is_given(where: str, words: list[str]) -> None:
    verbs = []
    for word in words:
        if word.startswith("-"):
            break
        verbs.append(word)
    text = help_of(*verbs[:2] if verbs[0] == "assay" else verbs)
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", text), f"{where}: `{' '.join(verbs)}` has no {flag}"


def test_the_worker_is_a_command_of_the_flows() -> None:
    assert SERVICES["worker"]["entrypoint"] == ["python", "-m", "pipelines", "worker"]
    assert '@app.command("worker")' in (REPOSITORY / "pipelines" / "__main__.py").read_text()


def test_python_in_the_compose_file_compiles() -> None:
    for name, words in commands():
        if words[:2] == ["python", "-c"]:
            compile(words[2], name, "exec")


def test_every_setting_exists() -> None:
    import mlflow.environment_variables as mlflow_names
    from mlflow.cli import cli
    from prefect.settings import Settings as PrefectSettings
    from prefect.settings.legacy import _get_settings_fields

    ray = {path.read_text() for path in (Path(_package("ray")) / "_private" / "authentication").glob("*.py")}
    server = {option.envvar for option in cli.commands["server"].params}  # type: ignore[attr-defined]
    known = {
        "ASSAY": {f"ASSAY_{name.upper()}" for name in Settings.model_fields},
        "MLFLOW": {getattr(value, "name", "") for value in vars(mlflow_names).values()} | server,
        "PREFECT": set(_get_settings_fields(PrefectSettings)),
        "RAY_AUTH": set(re.findall(r"RAY_AUTH_\w+", "".join(ray))) | {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"},
    }
    own = set(re.findall(r"^(\w+)=", (INFRA / "env.example").read_text(), re.M))  # the compose file's, not a program's
    for path in FILES:
        for prefix, names in known.items():
            used = set(re.findall(rf"\b{prefix}_[A-Z][A-Z_0-9]*\b", path.read_text()))
            assert used - own <= names, f"{path.name}: {sorted(used - own - names)}"
    assert {name for name in own if name.startswith("ASSAY_")} <= known["ASSAY"]


def _package(name: str) -> str:
    return str(resources.files(name))


def test_the_compose_file_is_one() -> None:
    import jsonschema

    schema = json.loads(
        resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(COMPOSE)
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["mlflow"]["helthcheck"] = {}
    assert not validator.is_valid(broken)


def kubernetes_validator(schema: dict[str, Any]) -> Any:
    """Of all that is Kubernetes' by Kubernetes' own schemas."""
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    folder = resources.files("kubernetes_validate").joinpath(f"kubernetes-json-schema/v{KUBERNETES}-local-strict")
    definitions = Resource(json.loads(folder.joinpath("_definitions.json").read_text()), DRAFT202012)
    registry: Any = Registry().with_resource("/api/_definitions.json", definitions)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@pytest.mark.parametrize("manifest", [CLUSTER, JOB], ids=["RayCluster", "RayJob"])
def test_the_manifests_are_what_kuberay_and_kubernetes_take(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"] == "ray.io/v1"
    validator = kubernetes_validator(KINDS[manifest["kind"]])
    errors = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(manifest["spec"])]
    assert errors == []
    broken = json.dumps(manifest["spec"]).replace('"image":', '"imagee":')
    assert not validator.is_valid(json.loads(broken)), "Kubernetes' part is looked at"
    assert not validator.is_valid({**manifest["spec"], "rayVersoin": "2"}), "KubeRay's part is looked at"


def test_the_settings_map_is_one() -> None:
    import kubernetes_validate

    kubernetes_validate.validate(CONFIG_MAP, KUBERNETES, strict=True)
    assert (
        CONFIG_MAP["metadata"]["name"]
        == groups(CLUSTER)[0]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    )


def test_rays_own_autoscaler_reads_the_cluster() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = copy.deepcopy(CLUSTER)
    cluster["metadata"]["namespace"] = "assay"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in types.items()} == {
        "headgroup": (0, 0), "cpu": (0, 8), "gpu": (0, 4),
    }  # fmt: skip
    assert [types[name]["resources"].get("GPU", 0) for name in ("headgroup", "cpu", "gpu")] == [0, 0, 1]
    assert [types[name]["resources"]["CPU"] for name in ("headgroup", "cpu", "gpu")] == [0, 4, 8]
    assert CLUSTER["spec"]["enableInTreeAutoscaling"] is True
    assert JOB["spec"]["clusterSelector"]["ray.io/cluster"] == CLUSTER["metadata"]["name"]
    assert "backoffLimit" not in JOB["spec"], "KubeRay refuses it together with clusterSelector"


def test_rays_own_launcher_reads_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(LAUNCHER))
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"
    addresses = [LAUNCHER["provider"]["head_ip"], *LAUNCHER["provider"]["worker_ips"]]
    assert all(address.startswith("192.0.2.") for address in addresses), "addresses that belong to nobody"
    assert "--dashboard-host=127.0.0.1" in LAUNCHER["head_start_ray_commands"][1]


def test_versions_are_those_of_the_constraints() -> None:
    tag = f"{VERSION}-ray{PINS['ray']}"
    ours = {f"assay:{tag}-cpu", f"assay:{tag}-cuda"}
    images = {service["image"] for service in SERVICES.values()} | {LAUNCHER["docker"]["image"]}
    images |= {container["image"] for pod in pods() for container in pod["containers"]}
    assert {image for image in images if image.startswith("assay:")} == ours
    for image in images:
        name, _, version = image.rpartition(":")
        assert re.search(r"\d+\.\d+", version), f"{image} names no version"
        assert "." not in name, f"{image} names a host"
    for text in (DOCKERFILE, (INFRA / "README.md").read_text()):
        assert set(re.findall(r"assay:[\w.-]+", text)) <= ours
    assert CLUSTER["spec"]["rayVersion"] == PINS["ray"]
    labels = dict(re.findall(r'assay\.(\w+)="([^"]+)"', DOCKERFILE))
    assert labels == {name: PINS[name] for name in ("ray", "mlflow", "prefect", "torch")}


def test_the_image_is_built_from_the_constraints_and_runs_as_nobody_special() -> None:
    from packaging.specifiers import SpecifierSet

    from assay.usecases.doctor import PYTHONS

    (python,) = set(re.findall(r"^ARG PYTHON=(\d+\.\d+\.\d+)-slim-\w+$", DOCKERFILE, re.M))
    assert SpecifierSet(str(PYTHONS)).contains(python)
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert all("-c constraints.txt" in line or "--no-index" in line for line in installs)
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
    final = next(stage for stage in stages if " AS cpu" in stage)
    assert re.findall(r"^USER (\d+)$", final, re.M) == ["10001"]
    assert 'ENTRYPOINT ["assay"]' in final
    assert "HEALTHCHECK" in final
    assert next(stage for stage in stages if " AS cuda" in stage).startswith("cpu AS cuda")
    assert not re.search(r"build-essential|gcc|--mount=type=secret|^ARG \w*(PASSWORD|TOKEN|SECRET)", final, re.M)
    allowed = set(re.findall(r"^!(\S+)$", (INFRA / "Dockerfile.dockerignore").read_text(), re.M))
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M) for name in line.split()}
    assert copied == allowed
    assert all((REPOSITORY / name).exists() for name in copied)


def test_services_are_closed_watched_and_limited() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} opens {port}"
        assert service["healthcheck"], name
        assert service["deploy"]["resources"]["limits"], name
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert service["cap_drop"] == ["ALL"], name
        assert not str(service.get("user", "10001")).startswith(("0", "root")), name
        assert not service.get("privileged"), name
        for other, how in service.get("depends_on", {}).items():
            once = SERVICES[other]["healthcheck"].get("disable", False)
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy"), name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in {"..", *COMPOSE["volumes"]}, name
    assert SERVICES["worker"]["hostname"]


def test_pods_may_do_little() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsUser"] == 10001
        for context in (pod["securityContext"], *(container["securityContext"] for container in pod["containers"])):
            assert context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
            assert "env" not in container, "settings come from the map, secrets from the Secret"
    for group in groups(CLUSTER):
        cache_volume = group["template"]["spec"]["volumes"][0]
        limit = int(cache_volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert limit > float(CONFIG_MAP["data"]["ASSAY_DATA_CACHE_GB"]), "the cache ends before the volume does"
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token", "secretName": "assay-ray-token"}


def test_secrets_are_references() -> None:
    text = (INFRA / "compose.yaml").read_text()
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.search(r"\$\{\w+:\?", str(value)), f"{name}: {key}"
    for name in set(re.findall(r"\$\{(\w+)(?!:\?)[^\w:?]", text)) | set(re.findall(r"\$\{(\w+):-", text)):
        assert name == "ASSAY_WEBHOOK", f"{name} may be empty"
    wanted = set(re.findall(r"\$\{(\w+)", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (INFRA / "env.example").read_text(), re.M))
    assert set(example) == wanted
    assert set(example.values()) == {""}
    assert not {key for key in CONFIG_MAP["data"] if SECRET.search(key)}
    for path in FILES:
        for password in re.findall(r"://[^\s:/@]+:([^\s@]+)@", path.read_text()):
            assert password.startswith(("${", "$", "PASSWORD")), f"{path.name} holds a password"

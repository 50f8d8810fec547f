"""What lies in deploy/: valid by the judges of each format, shut in, without secrets, and in step with itself."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pgstow.config.reading import read_settings
from pgstow.core.process import run
from support.dockerfile import Instruction, expanded, instructions

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
KUBERNETES = DEPLOY / "kubernetes"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts)
SCRIPTS = [path for path in FILES if path.read_text(errors="replace").startswith("#!/bin/sh")]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


def docker(name: str) -> list[Instruction]:
    return [each for each in instructions(DOCKERFILE) if each.name == name]


# -- shell


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts(script: Path) -> None:
    run([program("shellcheck"), "--shell=sh", script])
    assert os.access(script, os.X_OK)


def test_all_scripts_are_looked_at() -> None:
    assert {path.name for path in SCRIPTS} == {"install.sh", "set-password.sh", "make-secrets"}


def test_cron_file() -> None:
    """Each line in cron.d's form; its command judged as a script."""
    lines = [
        line for line in (DEPLOY / "cron" / "pgstow").read_text().splitlines() if line and line[0] != "#"
    ]
    jobs = [line.split(None, 6) for line in lines if not re.match(r"[A-Z_]+=", line)]
    assert len(jobs) == 4
    for *times, user, command in jobs:
        assert len(times) == 5
        assert all(re.fullmatch(r"[0-9*/,-]+", field) for field in times)
        assert user == "pgstow"
        assert "%" not in command  # cron's own sign for a line break
        run([program("shellcheck"), "--shell=sh", "-"], input_bytes=f"#!/bin/sh\n{command}\n".encode())


# -- the image


def test_bases_have_names_and_releases() -> None:
    arguments = {
        name: value
        for name, _, value in (each.text.partition("=") for each in docker("ARG") if each.stage < 0)
    }
    bases = [expanded(each.words[0], arguments) for each in docker("FROM")]
    assert bases
    for base in bases:
        assert re.fullmatch(r"[a-z]+:[0-9][0-9.]*(-[a-z0-9]+)*", base), base


def test_nobody_is_root_and_nothing_is_fetched_by_address() -> None:
    last = max(each.stage for each in docker("FROM"))
    (user,) = [each.text for each in docker("USER") if each.stage == last]
    assert re.fullmatch(r"[1-9][0-9]+:[1-9][0-9]+", user)
    assert not docker("ADD")
    assert "://" not in DOCKERFILE.read_text()
    account = (DEPLOY / "image" / "install.sh").read_text()
    assert f"UID_OF_PGSTOW={user.partition(':')[0]}\n" in account


def test_no_secret_is_part_of_a_layer() -> None:
    for each in itertools.chain(docker("ARG"), docker("ENV"), docker("LABEL")):
        assert not re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIAL", each.text, re.IGNORECASE), each.text


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    kept = [
        line[1:]
        for line in DOCKERFILE.with_suffix(".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    for each in docker("COPY"):
        *sources, _ = [word for word in each.words if not word.startswith("--")]
        if "--from=" in each.text:
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in kept), source


def test_every_run_is_a_step_of_the_script_that_is_tested() -> None:
    script = (DEPLOY / "image" / "install.sh").read_text()
    steps = re.findall(r"^  ([a-z-]+)\) [a-z_]+", script, re.MULTILINE)
    used = re.findall(r"pgstow-install(?:\", \"| )([a-z-]+)", DOCKERFILE.read_text())
    assert sorted(used) == sorted(steps)
    for each in docker("RUN"):
        assert "pgstow-install" in each.text
        if not each.is_exec_form:
            text = f"#!/bin/sh\nPOSTGRESQL_CLIENTS=x\n{each.text}\n"
            run([program("shellcheck"), "--shell=sh", "--exclude=SC2086", "-"], input_bytes=text.encode())


def test_signals_reach_pgstow() -> None:
    (entrypoint,) = docker("ENTRYPOINT")
    (command,) = docker("CMD")
    assert entrypoint.is_exec_form
    assert entrypoint.words == ["/usr/bin/tini", "--", "pgstow"]
    assert command.is_exec_form
    (health,) = docker("HEALTHCHECK")
    assert "pgstow status --check || exit 1" in health.text  # docker knows no other failure than 1


# -- compose


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.compose-spec", "compose.yaml"),
        ("vendor.github-workflows", "ci/github-actions.yml"),
        ("vendor.gitlab-ci", "ci/gitlab-ci.yml"),
    ],
)
def test_published_schemas(schema: str, name: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    if schema == "vendor.gitlab-ci":
        check += ["--data-transform", "gitlab-ci"]
    run([*check, DEPLOY / name])


def test_compose_names_what_there_is(tmp_path: Path) -> None:
    document = compose()
    run([DEPLOY / "compose" / "make-secrets", tmp_path / "secrets"])
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    for name, secret in document["secrets"].items():
        path = tmp_path / secret["file"]
        assert path.read_text().strip(), name
        assert path.stat().st_mode & 0o004, "the container's user is not the one who made it"
    before = (tmp_path / "secrets" / "repository_password").read_text()
    run([DEPLOY / "compose" / "make-secrets", tmp_path / "secrets"])
    assert (tmp_path / "secrets" / "repository_password").read_text() == before
    for service in document["services"].values():
        assert set(service.get("secrets", [])) <= set(document["secrets"])
        assert set(service.get("depends_on", [])) <= set(document["services"])
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in document["volumes"]
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("/run/secrets/")


def test_compose_lets_backups_end() -> None:
    service = compose()["services"]["pgstow"]
    grace_s = int(service["command"][service["command"].index("--grace") + 1].removesuffix("s"))
    assert int(service["stop_grace_period"].removesuffix("m")) * 60 > grace_s
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True


# -- Kubernetes


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [document for _, document in manifests() if document["kind"] == kind]
    return found


def pods() -> Iterator[dict[str, Any]]:
    yield manifest("Deployment")["spec"]["template"]
    yield manifest("CronJob")["spec"]["jobTemplate"]["spec"]["template"]


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_kubernetes_knows_every_key(version: str) -> None:
    seen = []
    for _, document in manifests():
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, version, strict=True)
            seen.append(document["kind"])
    assert len(seen) == 8
    wrong = {**manifest("PodDisruptionBudget"), "spec": {"minAvailabel": 1}}
    with pytest.raises(Exception, match="minAvailabel"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_kustomizations_name_files_that_exist() -> None:
    for path, document in manifests():
        if document["kind"] == "Kustomization":
            for name in document["resources"]:
                assert (path.parent / name).exists(), name
            assert "secret.example.yaml" not in document["resources"]


def test_pods_keep_the_restricted_profile() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ and what goes beyond."""
    for pod in pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == docker("USER")[0].text
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert re.fullmatch(r"pgstow:[0-9.]+", container["image"])  # no registry, no "latest"
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in spec["volumes"]}
            assert "env" not in container  # secrets come as files
        kinds = set(itertools.chain.from_iterable(volume.keys() for volume in spec["volumes"])) - {"name"}
        assert kinds <= {"configMap", "secret", "emptyDir"}


def test_selectors_meet_the_pods() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods()]
    deployment = manifest("Deployment")["spec"]["selector"]["matchLabels"]
    assert [deployment.items() <= each.items() for each in labels] == [True, False]
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == deployment
    assert manifest("Service")["spec"]["selector"] == deployment
    policy = manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert all(policy.items() <= each.items() for each in labels)
    assert (
        manifest("PodDisruptionBudget")["spec"]["minAvailable"] < manifest("Deployment")["spec"]["replicas"]
    )


def test_pods_let_backups_end() -> None:
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    assert spec["terminationGracePeriodSeconds"] > int(
        arguments[arguments.index("--grace") + 1].removesuffix("s")
    )


def test_settings_secrets_and_ports_agree() -> None:
    text = manifest("ConfigMap")["data"]["pgstow.yaml"]
    settings = yaml.safe_load(text)
    port = int(settings["monitoring"]["listen"].rpartition(":")[2])
    container = manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": port}]
    assert manifest("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port
    referred = set(re.findall(r"file:/run/secrets/pgstow/([a-z-]+)", text))
    assert referred == set(manifest("Secret")["stringData"])
    assert manifest("CronJob")["spec"]["schedule"] == settings["plans"]["nightly"]["schedule"]


# -- settings and commands


def example_settings() -> dict[str, str]:
    """Return every settings file that is shown, by where it stands."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    return {
        "page": re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0],
        "compose": (DEPLOY / "compose" / "pgstow.yaml").read_text(),
        "kubernetes": manifest("ConfigMap")["data"]["pgstow.yaml"],
    }


@pytest.mark.parametrize("name", example_settings())
def test_settings_are_valid(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pgstow.yaml"
    path.write_text(example_settings()[name])
    assert "nightly" in read_settings(path).plans


def test_plans_that_are_run_are_in_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "pgstow.yaml"
    path.write_text(example_settings()["compose"])
    plans = read_settings(path).plans
    texts = [*(path.read_text() for path in FILES), (ROOT / "docs" / "deployment.md").read_text()]
    named = {name for text in texts for name in re.findall(r"pgstow run ([a-z-]+)", text)}
    named |= set(re.findall(r'" run ([a-z-]+)', (DEPLOY / "ci" / "github-actions.yml").read_text()))
    assert {"nightly", "pre-deployment"} <= named <= set(plans)


def test_page_has_the_role_that_is_tested() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    (shown,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    script = (DEPLOY / "sql" / "backup-role.sql").read_text()
    assert statements(shown) == statements(script.replace("BEGIN;", "").replace("COMMIT;", ""))


def statements(sql: str) -> list[str]:
    plain = re.sub(r"--.*", "", sql)
    return [" ".join(each.split()) for each in plain.split(";") if each.strip()]


def test_files_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    made = {"deploy/secrets", "deploy/pgstow"}  # by make-secrets; the Deployment as kubectl calls it
    named = set(re.findall(r"(?<![\w/])deploy/[\w./-]*\w", page)) - made
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


# -- all of it


def test_no_address_of_anybody() -> None:
    """Images by name, packages from where the base image has them: no registry, mirror or account of ours."""
    for path in FILES:
        found = re.findall(r"([a-z0-9+]+)://([^\s\"'`]*)", path.read_text())
        assert {scheme for scheme, _ in found} <= {"s3", "postgresql"}, path

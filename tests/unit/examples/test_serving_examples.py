"""The files of examples/serving, as far as they can be read without a cluster, a Docker daemon and Grafana."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from relay_verl.cli.main import app
from relay_verl.serving.serve_metrics import ServeMetrics
from relay_verl.serving.settings import ServerState

FOLDER = Path(__file__).parents[3] / "examples" / "serving"


def parse_serve(words: list[str]) -> dict[str, Any]:
    """The options of a command line of `relay-verl serve`."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands["serve"].make_context("serve", list(words)).params)


def test_the_manifests_are_valid_and_their_command_can_be_read() -> None:
    import kubernetes_validate

    manifests = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    for manifest in manifests:
        kubernetes_validate.validate(manifest, desired_version="1.37", strict=True)
    pod = manifests[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # the image's entry point is the beginning of the command
    entry = json.loads(re.findall(r"ENTRYPOINT (\[.*\])", (FOLDER / "Dockerfile").read_text())[0])
    assert entry[:2] == ["relay-verl", "serve"]
    options = parse_serve([*entry[2:], *container["args"]])
    assert options["host"] == "0.0.0.0"
    assert options["shutdown_timeout"] < pod["terminationGracePeriodSeconds"]
    assert {"RELAY_SERVE_API_KEY"} <= {variable["name"] for variable in container["env"]}
    assert container["livenessProbe"]["httpGet"]["path"] != "/health"  # 503 while a model is started again


def test_the_compose_file_names_what_is_there() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    relay = compose["services"]["relay"]
    options = parse_serve(relay["command"])
    assert options["shutdown_timeout"] < float(relay["stop_grace_period"].removesuffix("s"))
    assert (FOLDER / relay["build"]["context"] / relay["build"]["dockerfile"]).is_file()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (FOLDER / source).exists(), volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["relay:8000"]


def test_the_dashboard_asks_for_metrics_that_are_published() -> None:
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "relay.json").read_text())
    page = ServeMetrics(lambda: ServerState.READY, lambda: 0, lambda: 0, lambda: 0).page().decode()
    published = set(re.findall(r"^(relay:\w+)", page, re.MULTILINE))
    labels = {"source", "outcome", "cache", "state", "code", "finished_reason"}
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"relay:\w+", target["expr"]))
            grouped = re.findall(r"by \((\w+)\)", target["expr"]) + re.findall(r"\{(\w+)=", target["expr"])
            assert set(grouped) <= labels | {"le"}
    # a metric with a label that has not been seen yet has no sample, but its name
    published |= {
        f"{name}_total" for name in re.findall(r"^# TYPE (relay:\w+?)(?:_total)? counter", page, re.MULTILINE)
    }
    assert asked <= published
    parts = re.compile(r"_(bucket|sum|count|created)$")
    names = {parts.sub("", name) for name in published if not name.endswith("_created")}
    unseen = names - {parts.sub("", name) for name in asked}
    assert not {name for name in unseen if f"{name}_total" not in asked}, "the dashboard leaves these out"


@pytest.mark.parametrize("script", ["teacher.sh"])
def test_a_script_says_what_it_needs(script: str) -> None:
    subprocess.run(["bash", "-n", str(FOLDER / script)], check=True, timeout=60)
    run = subprocess.run(
        [str(FOLDER / script)], capture_output=True, text=True, timeout=60, env={"PATH": "/bin:/usr/bin"}
    )
    assert run.returncode != 0
    assert "the first argument" in run.stderr

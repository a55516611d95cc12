"""Servers, replicas and what watches them never want one port."""

from copier_mlops import _ports
from copier_mlops.deploy.proxy import slots


def test_a_server_has_its_usual_port_or_a_chosen_one() -> None:
    assert _ports.servers({"GRAFANA_PORT": "3001", "MLFLOW_PORT": ""}) == {**_ports.SERVERS, "grafana": 3001}


def test_each_replica_has_a_port_of_its_own() -> None:
    ports = [slot.port for slot in slots(8100)]
    assert len(set(ports)) == len(ports) and min(ports) == 8101 and max(ports) == 8100 + _ports.SPAN

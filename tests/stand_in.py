"""What stands for Grafana in its container where no image of Grafana is to be had.

It shows that the container runs with the rights, the folders and the settings that the project gives it, and that what Grafana would
read is there: it is no Grafana, and draws nothing.
"""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

provisioning = Path(os.environ["GF_PATHS_PROVISIONING"])
(source,) = (provisioning / "datasources").glob("*.yaml")
(provider,) = (provisioning / "dashboards").glob("*.yaml")
(folder,) = re.findall(r"^ *path: (\S+)$", provider.read_text(), re.M)
boards = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]
(address,) = re.findall(r"^ *url: (\S+)$", source.read_text(), re.M)
json.loads(Path(os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).read_text())
Path("/var/lib/grafana/grafana.db").touch()  # where it keeps what it knows
SAYS = {
    "/api/health": {"database": "ok"},
    "/api/search": [{"uid": board["uid"], "title": board["title"]} for board in boards],
}
PROXY = "/api/datasources/proxy/uid/prometheus"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith(PROXY):
            with urlopen(os.path.expandvars(address) + self.path.removeprefix(PROXY), timeout=10) as answer:
                says = answer.read()
        else:
            says = json.dumps(SAYS.get(self.path.partition("?")[0])).encode()
        self.send_response(404 if says == b"null" else 200)
        self.end_headers()
        self.wfile.write(says)


HTTPServer((os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])), Answers).serve_forever()

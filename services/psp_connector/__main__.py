"""`python -m services.psp_connector`: charges queued transactions until a signal."""

from services.common import worker
from services.psp_connector.app import build
from services.psp_connector.settings import ConnectorSettings

if __name__ == "__main__":
    worker.run("psp-connector", ConnectorSettings, build)

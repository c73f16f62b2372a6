"""`python -m services.core_api`: serves the Core API."""

from services.common import server
from services.core_api.app import create_app
from services.core_api.settings import CoreSettings

if __name__ == "__main__":
    server.run("core-api", CoreSettings, create_app)

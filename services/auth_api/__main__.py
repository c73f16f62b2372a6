"""`python -m services.auth_api`: serves the Auth API."""

from services.auth_api.app import create_app
from services.auth_api.settings import AuthSettings
from services.common import server

if __name__ == "__main__":
    server.run("auth-api", AuthSettings, create_app)

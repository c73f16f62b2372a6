"""`python -m services.psp_sandbox`: serves the PSP sandbox."""

from services.common import server
from services.psp_sandbox.app import create_app
from services.psp_sandbox.settings import SandboxSettings
from services.psp_sandbox.waiting import THREADS

if __name__ == "__main__":
    server.run("psp-sandbox", SandboxSettings, create_app, threads=THREADS)

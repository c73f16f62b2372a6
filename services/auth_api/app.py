"""The Auth API: issues tokens that are valid for 30 seconds."""

from services.auth_api.directory import UserDirectory
from services.auth_api.limits import LoginLimits
from services.auth_api.passwords import Passwords
from services.auth_api.resources import TokenResource
from services.auth_api.settings import AuthSettings
from services.common import openapi
from services.common.tokens import Tokens
from services.common.web import App, make_app


def create_app(settings: AuthSettings) -> App:
    """Creates the app."""
    users = UserDirectory(settings.users_file)
    token = TokenResource(users, Passwords(), LoginLimits(), Tokens(settings), settings.proxies())
    routes = {"/token": token}
    document = openapi.document("Auth API", "Issues tokens that are valid for 30 seconds.", routes)
    return make_app(routes, settings, checks={"users": users.check}, openapi=document)

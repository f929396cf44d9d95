"""The settings of a command, and what is said about a setting that cannot be used."""

from pydantic import ValidationError

from service import log
from service.config import SETTINGS_FILE_VARIABLE, SettingRefused, Settings, load_settings
from service.errors import SettingInvalid


def configured() -> Settings:
    """The settings, with the log set up as they say. Raises SettingInvalid."""
    chosen = settings()
    log.configure(chosen.log_format, chosen.log_level)
    return chosen


def settings() -> Settings:
    """Raises SettingInvalid for the first setting that cannot be used."""
    try:
        return load_settings()
    except SettingRefused as error:
        raise SettingInvalid(setting=error.setting, reason=error.reason) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "STILLPOINT_" + "_".join(str(part) for part in first["loc"]).upper() if first["loc"] else SETTINGS_FILE_VARIABLE
        raise SettingInvalid(setting=name, reason=first["msg"]) from error

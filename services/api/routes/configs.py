"""`/api/configs`: the YAML configuration files that a job may name."""

from __future__ import annotations

from fastapi import APIRouter

from services.api.auth import ContextDep, Reader
from services.api.operations import configs
from services.api.schemas.problems import problem_responses
from tidal_client.wire.config_file import ConfigFileContent, ConfigFileList

router = APIRouter(prefix="/api/configs", tags=["configs"], dependencies=[Reader])


@router.get("", summary="List configuration files")
def list_configs(context: ContextDep) -> ConfigFileList:
    """Returns all YAML files below the configuration folder.

    Each has its kind (`lm` or `rl`); an invalid file has a description of its problem.
    """
    return ConfigFileList(configs=configs.config_files(context.settings.config_dir))


@router.get("/{file:path}", summary="Read a configuration file", responses=problem_responses(404))
def get_config(file: str, context: ContextDep) -> ConfigFileContent:
    """Returns the text of a file, and the configuration that results from it, including all defaults."""
    return configs.read_config_file(context.settings.config_dir, file)

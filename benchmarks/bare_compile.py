"""The pipeline compiled by KFP's own compiler: `python bare_compile.py ENVIRONMENT FILE`."""

import sys

from kfp.compiler import Compiler

from pipelines.compiler import arguments
from pipelines.config import load
from pipelines.environment import load_environment
from pipelines.placement import pipeline

place = load_environment(sys.argv[1])
values = arguments(load(store=place.model_store()), place)
Compiler().compile(pipeline(place), sys.argv[2], pipeline_parameters=values)

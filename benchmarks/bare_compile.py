"""The pipeline compiled by KFP's own compiler: `python bare_compile.py ENVIRONMENT FILE`."""

import sys

from kfp.compiler import Compiler

from modelyard.pipelines.compiler import arguments
from modelyard.pipelines.config import load
from modelyard.pipelines.environment import load_environment
from modelyard.pipelines.placement import pipeline

place = load_environment(sys.argv[1])
values = arguments(load(store=place.model_store()), place)
Compiler().compile(pipeline(place), sys.argv[2], pipeline_parameters=values)

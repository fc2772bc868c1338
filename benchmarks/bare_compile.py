"""Compiles the pipeline with KFP's compiler: `python bare_compile.py ENVIRONMENT FILE`."""

import sys

from kfp.compiler import Compiler

from modelyard.pipelines.compile.compiler import create_arguments, create_pipeline
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment

environment = load_environment(sys.argv[1])
values = create_arguments(load(store=environment.model_store()), environment)
Compiler().compile(create_pipeline(environment), sys.argv[2], pipeline_parameters=values)

"""What runs the pipeline: processes of this machine (local), pods without KFP (pods), a KFP server (kfp)."""

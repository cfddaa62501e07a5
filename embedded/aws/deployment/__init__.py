"""Deploying what `cdk synth` wrote into the embedded AWS."""

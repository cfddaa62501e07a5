"""What a deployment costs: one run, one hour of serving, one idle month. Nothing here needs the CDK or an account."""

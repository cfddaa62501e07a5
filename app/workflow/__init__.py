"""What the state machine's Lambdas decide. Standard library and boto3 alone: a Lambda has nothing else."""

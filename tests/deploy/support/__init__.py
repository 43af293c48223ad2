"""What the tests of the deployments are made of."""

"""The tests of what is deployed: charts, manifests, rules. No cluster, no network but loopback."""

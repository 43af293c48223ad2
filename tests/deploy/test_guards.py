"""What the chart refuses, and that it says what to do."""

import pytest
from support import helm
from support.paths import CHART

#: Rendered as it is.
GOOD = {
    "upstream": {"url": "http://app:8080"},
    "sessions": {"store": "redis://redis:6379/0"},
    "directory": {"url": "postgres://doorward@db/doorward"},
    "secrets": {"existingSecret": "doorward-secrets"},
}

FORWARD_AUTH = {**GOOD, "mode": "forwardAuth", "upstream": {"url": ""}, "trustedProxies": ["10.0.0.0/8"]}

MONITORED = {"podMonitor": {"enabled": True}}

#: name: values over GOOD, words of the refusal.
GUARDS = {
    "no upstream": ({"upstream": {"url": ""}}, "upstream.url is empty: in gateway mode say where requests go"),
    "an upstream in forwardAuth mode": (
        {**FORWARD_AUTH, "upstream": {"url": "http://app:8080"}},
        "upstream.url does nothing in forwardAuth mode",
    ),
    "nobody trusted in forwardAuth mode": (
        {**FORWARD_AUTH, "trustedProxies": []},
        "trustedProxies is empty: in forwardAuth mode only proxies",
    ),
    "replicas with the embedded store": (
        {"sessions": {"store": ""}},
        "several replicas need a shared session store: set sessions.store to redis://",
    ),
    "replicas with a file as the store": (
        {"config": {"sessions": {"store": "sqlite:///x"}}},
        "several replicas need a shared session store",
    ),
    "autoscaled with the embedded store": (
        {"sessions": {"store": ""}, "replicaCount": 1, "autoscaling": {"enabled": True}},
        "need a shared session store",
    ),
    "replicas with a directory each": (
        {"directory": {"url": ""}},
        "several replicas need a shared directory: set directory.url to postgres://",
    ),
    "replicas on one volume": ({"persistence": {"enabled": True}}, "persistence is for one replica"),
    "no token keys": ({"sessions": {"store": "redis://redis:6379/0", "tokenKeys": []}}, "sessions.tokenKeys is empty"),
    "no Secret": (
        {"secrets": {"existingSecret": ""}},
        "a secret is needed and none is ever generated: set secrets.existingSecret to a Secret with the key "
        '"token-key"',
    ),
    "a value too few": (
        {
            "redis": {"passwordSecretKey": "redis-password"},
            "secrets": {"existingSecret": "", "values": {"token-key": "x"}},
        },
        'a Secret with the key "redis-password"',
    ),
    "two sources of secrets": (
        {"secrets": {"existingSecret": "a", "values": {"b": "c"}}},
        "exclude each other: name a Secret or give the values",
    ),
    "two sources of configuration": (
        {"existingConfigMap": "mine", "config": {"routes": []}},
        "config and existingConfigMap exclude each other",
    ),
    "killed while it drains": (
        {"terminationGracePeriodSeconds": 33},
        "terminationGracePeriodSeconds is 33 and must be more than 33",
    ),
    "ports that collide": ({"ports": {"admin": 8080}}, "ports.proxy, ports.admin and ports.grpc must differ"),
    "another listen": (
        {"config": {"listen": "0.0.0.0:80"}},
        "config.listen is the chart's: set listenAddress and ports.proxy",
    ),
    "another admin port": ({"config": {"admin": {}}}, "config.admin is the chart's: set listenAddress and ports.admin"),
    "another drain": (
        {"config": {"lifecycle": {"drain_delay": "1m"}}},
        "config.lifecycle.drain_delay is the chart's: set lifecycle.drainDelaySeconds",
    ),
    "forward_auth beside the mode": ({"config": {"forward_auth": {}}}, "config.forward_auth is the chart's: set mode"),
    "TLS in the pod": ({"config": {"tls": {"cert": "/x", "key": "/y"}}}, "config.tls is not for this chart"),
    "a route for Doorward's own paths that takes all": (
        {**FORWARD_AUTH, "gatewayApi": {"enabled": True, "parentRefs": [{"name": "public"}]}},
        "gatewayApi.matches is empty: in forwardAuth mode the route is for Doorward's own paths",
    ),
    "a password in the configuration's store": (
        {"config": {"sessions": {"store": "redis://doorward:hunter2@redis"}}},
        "config.sessions.store has a password",
    ),
    "a password in the configuration's directory": (
        {"config": {"directory": {"url": "postgres://doorward:hunter2@db/doorward"}}},
        "config.directory.url has a password",
    ),
    "an authority for Redis in clear": (
        {"redis": {"tls": {"existingCASecret": "redis-tls"}}},
        "redis.tls is for TLS: set sessions.store to rediss://",
    ),
    "an authority for a file": (
        {"directory": {"url": "", "perReplica": True, "tls": {"existingCASecret": "db-tls"}}},
        "directory.tls is for PostgreSQL",
    ),
    "replicas of an unseen configuration on one volume": (
        {"existingConfigMap": "mine", "persistence": {"enabled": True}},
        "persistence is for one replica",
    ),
    "a selector's label on everything": (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        'commonLabels has "app.kubernetes.io/name", which is the chart\'s',
    ),
    "a selector's label on pods": (
        {"podLabels": {"app.kubernetes.io/instance": "x"}},
        'podLabels has "app.kubernetes.io/instance", which is the chart\'s',
    ),
    "a label twice": (
        {"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}},
        'podLabels and commonLabels both have "team"',
    ),
    "metrics that nobody can reach": (
        {"metrics": MONITORED},
        "Prometheus could not reach the admin port: name it in networkPolicy.metricsFrom",
    ),
    "two monitors": (
        {"metrics": {**MONITORED, "serviceMonitor": {"enabled": True}}, "networkPolicy": {"enabled": False}},
        "would scrape every pod twice",
    ),
    "an alert that is none": (
        {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["DoorwardNoSuch"]}}},
        'names "DoorwardNoSuch", which is no alert; there are: Doorward',
    ),
    "a route to no Gateway": ({"gatewayApi": {"enabled": True}}, "gatewayApi.parentRefs is empty: name the Gateway"),
    "an Ingress for no host": ({"ingress": {"enabled": True}}, "ingress.hosts is empty: e.g."),
    "more at least than at most": (
        {"autoscaling": {"enabled": True, "minReplicas": 20}},
        "minReplicas is more than autoscaling.maxReplicas",
    ),
    "scaling by a share of nothing": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": None}},
        "autoscaling by CPU needs resources.requests.cpu",
    ),
    "scaling by nothing": (
        {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}},
        "autoscaling has nothing to go by",
    ),
}

#: name: values over GOOD, the key and the words of the schema's refusal.
SCHEMA = {
    "a key that is none": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "a nested key that is none": ({"image": {"tga": "x"}}, "/image", "additional properties 'tga' not allowed"),
    "a mode that is none": ({"mode": "sidecar"}, "/mode", "'gateway', 'forwardAuth'"),
    "a strategy that is none": ({"reload": {"strategy": "cold"}}, "/reload/strategy", "'hot', 'rollout'"),
    "a pull policy that is none": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy", "'Always'"),
    "a digest that is none": ({"image": {"digest": "sha256:12"}}, "/image/digest", "does not match pattern"),
    "a type of Service that is none": ({"service": {"type": "External"}}, "/service/type", "'ClusterIP'"),
    "text for a number": ({"replicaCount": "2"}, "/replicaCount", "got string, want integer"),
    "no replica": ({"replicaCount": 0}, "/replicaCount", "minimum: got 0, want 1"),
    "a port out of range": ({"ports": {"proxy": 70000}}, "/ports/proxy", "maximum"),
    "a name to listen on": ({"listenAddress": "localhost"}, "/listenAddress", "'0.0.0.0', '[::]'"),
    "a store of another kind": ({"sessions": {"store": "memcached://x"}}, "/sessions/store", "does not match pattern"),
    "a password in the store's URL": (
        {"sessions": {"store": "rediss://doorward:hunter2@redis:6379/0"}},
        "/sessions/store",
        "does not match pattern",
    ),
    "a password without a user": (
        {"sessions": {"store": "redis+sentinel://:hunter2@one:26379,two:26379/main"}},
        "/sessions/store",
        "does not match pattern",
    ),
    "a password in the directory's URL": (
        {"directory": {"url": "postgres://doorward:hunter2@db/doorward"}},
        "/directory/url",
        "does not match pattern",
    ),
    "a privileged port": ({"ports": {"proxy": 80}}, "/ports/proxy", "minimum: got 80, want 1,024"),
    "a budget of nothing": ({"pdb": {"maxUnavailable": 0}}, "/pdb/maxUnavailable", "minimum: got 0, want 1"),
    "a budget of no share": ({"pdb": {"maxUnavailable": "0%"}}, "/pdb/maxUnavailable", "does not match pattern"),
    "a share of more than all": ({"pdb": {"maxUnavailable": "101%"}}, "/pdb/maxUnavailable", "does not match pattern"),
    "liveness that has to succeed twice": (
        {"probes": {"liveness": {"successThreshold": 2}}},
        "/probes/liveness",
        "'successThreshold' not allowed",
    ),
    "a grace of readiness": (
        {"probes": {"readiness": {"terminationGracePeriodSeconds": 2}}},
        "/probes/readiness",
        "'terminationGracePeriodSeconds' not allowed",
    ),
    "a name that is none": ({"fullnameOverride": "Front_Door"}, "/fullnameOverride", "does not match pattern"),
    "part of a name that is none": ({"nameOverride": "front.door"}, "/nameOverride", "does not match pattern"),
    "an upstream with a path": ({"upstream": {"url": "http://app/path"}}, "/upstream/url", "does not match pattern"),
    "a token key without id": (
        {"sessions": {"store": "redis://r", "tokenKeys": [{"secretKey": "x"}]}},
        "/sessions/tokenKeys/0",
        "'id'",
    ),
    "a path as a secret's key": ({"redis": {"passwordSecretKey": "../x"}}, "/redis/passwordSecretKey", "pattern"),
    "a network that is none": ({"trustedProxies": ["everybody"]}, "/trustedProxies/0", "does not match pattern"),
    "an interval without a unit": (
        {"metrics": {"podMonitor": {"interval": "30"}}},
        "/metrics/podMonitor/interval",
        "does not match pattern",
    ),
    "a kind of path that is none": (
        {"ingress": {"hosts": [{"host": "x", "paths": [{"path": "/", "pathType": "Regex"}]}]}},
        "pathType",
        "'Prefix'",
    ),
    "a probe's key that is none": ({"probes": {"liveness": {"period": 3}}}, "/probes/liveness", "'period' not allowed"),
}


def test_the_good_values_are_good():
    assert helm.render(CHART, GOOD)
    assert helm.render(CHART, FORWARD_AUTH)


#: name: values over GOOD that are no mistake, though near to one.
ALLOWED = {
    "users without passwords": {
        "sessions": {"store": "rediss+sentinel://doorward@one:26379,two:26379/main/0"},
        "directory": {"url": "postgresql://doorward@db:5432/doorward?sslmode=require"},
    },
    "no users": {"sessions": {"store": "redis+cluster://one:6379,two:6379"}, "directory": {"url": "postgres://db/x"}},
    "files": {"sessions": {"store": "sqlite:///x.db"}, "directory": {"url": "sqlite:///y.db"}, "replicaCount": 1},
    "no configuration": {"config": None},
    "a share of all": {"pdb": {"maxUnavailable": "100%"}},
    "readiness that has to succeed twice": {"probes": {"readiness": {"successThreshold": 2}}},
    "one replica of an unseen configuration": {
        "existingConfigMap": "mine",
        "persistence": {"enabled": True},
        "replicaCount": 1,
    },
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_near_a_mistake_is_none(name):
    assert helm.render(CHART, GOOD | ALLOWED[name])


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_says_what_to_do(name):
    more, words = GUARDS[name]
    assert words in helm.refusal(CHART, GOOD | more)


@pytest.mark.parametrize("name", SCHEMA)
def test_the_schema_names_the_key(name):
    more, *words = SCHEMA[name]
    refused = helm.refusal(CHART, GOOD | more)
    assert "values don't meet the specifications" in refused
    assert all(word in refused for word in words), refused

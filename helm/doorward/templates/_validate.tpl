{{- /* What a schema cannot say. Each message says what to do. */ -}}
{{- define "doorward-chart.validate" -}}
{{- include "doorward-chart.validate.lifecycle" . -}}
{{- include "doorward-chart.validate.secrets" . -}}
{{- include "doorward-chart.validate.metrics" . -}}
{{- include "doorward-chart.validate.exposure" . -}}
{{- include "doorward-chart.validate.labels" . -}}
{{- if .Values.existingConfigMap -}}
{{- if .Values.config -}}
{{- fail "config and existingConfigMap exclude each other: put the configuration into one of them" -}}
{{- end -}}
{{- else -}}
{{- include "doorward-chart.validate.mode" . -}}
{{- include "doorward-chart.validate.config" . -}}
{{- include "doorward-chart.validate.replicas" . -}}
{{- include "doorward-chart.validate.urls" . -}}
{{- end -}}
{{- include "doorward-chart.validate.persistence" . -}}
{{- end -}}

{{- define "doorward-chart.validate.lifecycle" -}}
{{- $needs := add (int .Values.lifecycle.drainDelaySeconds) (int .Values.lifecycle.drainTimeoutSeconds) 3 -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $needs) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d and must be more than %d: lifecycle.drainDelaySeconds, lifecycle.drainTimeoutSeconds and 3 s" (int .Values.terminationGracePeriodSeconds) (int $needs)) -}}
{{- end -}}
{{- $ports := list (int .Values.ports.proxy) (int .Values.ports.admin) (int .Values.ports.grpc) -}}
{{- if ne (len (uniq $ports)) 3 -}}
{{- fail "ports.proxy, ports.admin and ports.grpc must differ" -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.secrets" -}}
{{- if and .Values.secrets.existingSecret .Values.secrets.values -}}
{{- fail "secrets.existingSecret and secrets.values exclude each other: name a Secret or give the values" -}}
{{- end -}}
{{- if not .Values.secrets.existingSecret -}}
{{- $wanted := compact (list .Values.redis.passwordSecretKey .Values.directory.passwordSecretKey) -}}
{{- if and .Values.sessions.store (not .Values.existingConfigMap) -}}
{{- range .Values.sessions.tokenKeys -}}{{- $wanted = append $wanted .secretKey -}}{{- end -}}
{{- end -}}
{{- range $key := uniq $wanted -}}
{{- if not (hasKey $.Values.secrets.values $key) -}}
{{- fail (printf "a secret is needed and none is ever generated: set secrets.existingSecret to a Secret with the key %q (or secrets.values.%s for a trial; `doorward keys generate` makes a token key)" $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.metrics" -}}
{{- $scraped := or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- if and $scraped .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "Prometheus could not reach the admin port: name it in networkPolicy.metricsFrom, e.g. [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor and metrics.serviceMonitor would scrape every pod twice: enable one" -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.exposure" -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.parentRefs) -}}
{{- fail "gatewayApi.parentRefs is empty: name the Gateway, e.g. [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (eq .Values.mode "forwardAuth") (not .Values.gatewayApi.matches) -}}
{{- fail "gatewayApi.matches is empty: in forwardAuth mode the route is for Doorward's own paths, and would take all of the application's: e.g. [{path: {type: PathPrefix, value: /auth}}, {path: {type: Exact, value: /webhooks/clerk}}]" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts is empty: e.g. [{host: app.example.com, paths: [{path: /, pathType: Prefix}]}]" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (not (dig "requests" "cpu" "" (default dict .Values.resources))) .Values.autoscaling.targetCPUUtilizationPercentage -}}
{{- fail "autoscaling by CPU needs resources.requests.cpu: utilisation is a share of the request" -}}
{{- end -}}
{{- if not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.metrics) -}}
{{- fail "autoscaling has nothing to go by: set autoscaling.targetCPUUtilizationPercentage or autoscaling.metrics" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.mode" -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- if eq .Values.mode "gateway" -}}
{{- if not (dig "url" "" (default dict $config.upstream)) -}}
{{- fail "upstream.url is empty: in gateway mode say where requests go, e.g. http://app.default.svc:8080" -}}
{{- end -}}
{{- else -}}
{{- if .Values.upstream.url -}}
{{- fail "upstream.url does nothing in forwardAuth mode: the proxy in front forwards, Doorward only answers" -}}
{{- end -}}
{{- if not $config.trusted_proxies -}}
{{- fail "trustedProxies is empty: in forwardAuth mode only proxies in these networks may ask, e.g. [10.20.30.0/24]" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Keys that would no longer agree with the ports and probes of the Deployment. */ -}}
{{- define "doorward-chart.validate.config" -}}
{{- $config := default dict .Values.config -}}
{{- if hasKey $config "listen" -}}{{- fail "config.listen is the chart's: set listenAddress and ports.proxy" -}}{{- end -}}
{{- if hasKey $config "admin" -}}{{- fail "config.admin is the chart's: set listenAddress and ports.admin" -}}{{- end -}}
{{- if hasKey $config "forward_auth" -}}{{- fail "config.forward_auth is the chart's: set mode, forwardAuth.grpc and ports.grpc" -}}{{- end -}}
{{- range list "drain_delay" "drain_timeout" "termination_grace" -}}
{{- if hasKey (default dict $config.lifecycle) . -}}
{{- fail (printf "config.lifecycle.%s is the chart's: set lifecycle.drainDelaySeconds, lifecycle.drainTimeoutSeconds or terminationGracePeriodSeconds" .) -}}
{{- end -}}
{{- end -}}
{{- if $config.tls -}}
{{- fail "config.tls is not for this chart: the Service, helm test and the routes speak plain HTTP to the pods; end TLS at the gateway or in the mesh" -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.replicas" -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- $sessions := default dict $config.sessions -}}
{{- $embedded := hasPrefix "sqlite:" (dig "store" "sqlite:" $sessions) -}}
{{- if gt (int (include "doorward-chart.replicasMax" .)) 1 -}}
{{- if $embedded -}}
{{- fail "several replicas need a shared session store: set sessions.store to redis://… (or replicaCount to 1): the embedded store is a file of one replica" -}}
{{- end -}}
{{- if and (hasPrefix "sqlite:" (dig "url" "sqlite:" (default dict $config.directory))) (not .Values.directory.perReplica) -}}
{{- fail "several replicas need a shared directory: set directory.url to postgres://… (or accept with directory.perReplica: true that each remembers devices and users for itself)" -}}
{{- end -}}
{{- end -}}
{{- if and (not $embedded) (not (dig "token" "keys" list $sessions)) -}}
{{- fail "sessions.tokenKeys is empty: with Redis every replica needs the same token keys; name the keys of the Secret that hold them" -}}
{{- end -}}
{{- end -}}

{{- /* A ConfigMap is no place for a password, and a certificate for nothing is a mistake. */ -}}
{{- define "doorward-chart.validate.urls" -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- $store := toString (dig "store" "sqlite:" (default dict $config.sessions)) -}}
{{- $directory := toString (dig "url" "sqlite:" (default dict $config.directory)) -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $store -}}
{{- fail "config.sessions.store has a password, which everybody who may read the ConfigMap would see: put it into the Secret and name it in redis.passwordSecretKey" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $directory -}}
{{- fail "config.directory.url has a password, which everybody who may read the ConfigMap would see: put it into the Secret and name it in directory.passwordSecretKey" -}}
{{- end -}}
{{- if and .Values.redis.tls.existingCASecret (not (hasPrefix "rediss" $store)) -}}
{{- fail "redis.tls is for TLS: set sessions.store to rediss://… (or redis.tls.existingCASecret to nothing)" -}}
{{- end -}}
{{- if and .Values.directory.tls.existingCASecret (not (hasPrefix "postgres" $directory)) -}}
{{- fail "directory.tls is for PostgreSQL: set directory.url to postgres://… (or directory.tls.existingCASecret to nothing)" -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.persistence" -}}
{{- if and .Values.persistence.enabled (gt (int (include "doorward-chart.replicasMax" .)) 1) -}}
{{- fail "persistence is for one replica: several cannot share its files" -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.validate.labels" -}}
{{- range $whose, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range $name := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" -}}
{{- if hasKey (default dict $labels) $name -}}
{{- fail (printf "%s has %q, which is the chart's: use a name of your own" $whose $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.podLabels -}}
{{- if hasKey (default dict $.Values.commonLabels) $name -}}
{{- fail (printf "podLabels and commonLabels both have %q: commonLabels are on the pods already" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

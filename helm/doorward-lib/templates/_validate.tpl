{{- /* What a schema cannot say. Takes the values; each message says what to do. */ -}}
{{- define "doorward.validate" -}}
{{- $config := include "doorward.effectiveConfig" . | fromYaml -}}
{{- $sessions := default dict $config.sessions -}}
{{- $embedded := hasPrefix "sqlite:" (dig "store" "sqlite:" $sessions) -}}
{{- range $key, $instead := dict "listen" "listenAddress and ports.proxy" "admin" "listenAddress and ports.admin" -}}
{{- if hasKey (default dict $.config) $key -}}
{{- fail (printf "doorward: config.%s is the library's: set %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (default dict .config) "forward_auth" -}}
{{- fail "doorward: config.forward_auth is not for a sidecar, which nobody else asks: use the chart doorward with mode forwardAuth" -}}
{{- end -}}
{{- range list "drain_delay" "drain_timeout" "termination_grace" -}}
{{- if hasKey (default dict (default dict $.config).lifecycle) . -}}
{{- fail (printf "doorward: config.lifecycle.%s is the library's: set lifecycle.drainDelaySeconds or lifecycle.drainTimeoutSeconds, which doorward.appLifecycle and doorward.gracePeriodSeconds follow" .) -}}
{{- end -}}
{{- end -}}
{{- if not (or .image.tag .image.digest) -}}
{{- fail "doorward: image.tag and image.digest are both empty: set one" -}}
{{- end -}}
{{- include "doorward.validate.urls" . -}}
{{- if eq (int .ports.proxy) (int .ports.admin) -}}
{{- fail "doorward: ports.proxy and ports.admin must differ" -}}
{{- end -}}
{{- if not .singleReplica -}}
{{- if $embedded -}}
{{- fail "doorward: several pods need a shared session store: set sessions.store to redis://… (or singleReplica to true if there is never more than one pod)" -}}
{{- end -}}
{{- if and (hasPrefix "sqlite:" (dig "url" "sqlite:" (default dict $config.directory))) (not .directory.perReplica) -}}
{{- fail "doorward: several pods need a shared directory: set directory.url to postgres://… (or accept with directory.perReplica: true that each remembers devices and users for itself)" -}}
{{- end -}}
{{- end -}}
{{- if and (not $embedded) (not (dig "token" "keys" list $sessions)) -}}
{{- fail "doorward: sessions.tokenKeys is empty: with Redis every pod needs the same token keys; name the keys of the Secret that hold them" -}}
{{- end -}}
{{- if not .existingSecret -}}
{{- $wanted := compact (list .redis.passwordSecretKey .directory.passwordSecretKey) -}}
{{- if .sessions.store -}}{{- range .sessions.tokenKeys -}}{{- $wanted = append $wanted .secretKey -}}{{- end -}}{{- end -}}
{{- if $wanted -}}
{{- fail (printf "doorward: a secret is needed and none is ever generated: set existingSecret to a Secret with the keys %s" (join ", " $wanted)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A ConfigMap is no place for a password, and a certificate for nothing is a mistake. Takes the values. */ -}}
{{- define "doorward.validate.urls" -}}
{{- $config := include "doorward.effectiveConfig" . | fromYaml -}}
{{- $store := toString (dig "store" "sqlite:" (default dict $config.sessions)) -}}
{{- $directory := toString (dig "url" "sqlite:" (default dict $config.directory)) -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $store -}}
{{- fail "doorward: config.sessions.store has a password, which everybody who may read the ConfigMap would see: put it into the Secret and name it in redis.passwordSecretKey" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $directory -}}
{{- fail "doorward: config.directory.url has a password, which everybody who may read the ConfigMap would see: put it into the Secret and name it in directory.passwordSecretKey" -}}
{{- end -}}
{{- if and .redis.tls.existingCASecret (not (hasPrefix "rediss" $store)) -}}
{{- fail "doorward: redis.tls is for TLS: set sessions.store to rediss://… (or redis.tls.existingCASecret to nothing)" -}}
{{- end -}}
{{- if and .directory.tls.existingCASecret (not (hasPrefix "postgres" $directory)) -}}
{{- fail "doorward: directory.tls is for PostgreSQL: set directory.url to postgres://… (or directory.tls.existingCASecret to nothing)" -}}
{{- end -}}
{{- end -}}

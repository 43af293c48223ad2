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

{{- /* What the values come to as Doorward's configuration, without .Values.config. YAML. */ -}}
{{- define "doorward-chart.derivedConfig" -}}
{{- $files := "/run/secrets/doorward" -}}
listen: {{ printf "%s:%d" .Values.listenAddress (int .Values.ports.proxy) | quote }}
admin:
  listen: {{ printf "%s:%d" .Values.listenAddress (int .Values.ports.admin) | quote }}
upstream:
  # In forwardAuth mode nothing is forwarded.
  url: {{ if eq .Values.mode "forwardAuth" }}null{{ else }}{{ .Values.upstream.url | quote }}{{ end }}
{{- if .Values.sessions.store }}
sessions:
  store: {{ .Values.sessions.store | quote }}
  token:
    keys:
      {{- range .Values.sessions.tokenKeys }}
      - id: {{ int .id }}
        secret: { file: {{ printf "%s/%s" $files .secretKey }} }
      {{- else }} []
      {{- end }}
  {{- if or .Values.redis.passwordSecretKey .Values.redis.tls.existingCASecret }}
  redis:
    {{- with .Values.redis.passwordSecretKey }}
    password: { file: {{ printf "%s/%s" $files . }} }
    {{- end }}
    {{- if .Values.redis.tls.existingCASecret }}
    ca: {{ $files }}/redis-ca.crt
    {{- end }}
  {{- end }}
{{- end }}
{{- if .Values.directory.url }}
directory:
  url: {{ .Values.directory.url | quote }}
  {{- with .Values.directory.passwordSecretKey }}
  password: { file: {{ printf "%s/%s" $files . }} }
  {{- end }}
  {{- if .Values.directory.tls.existingCASecret }}
  ca: {{ $files }}/directory-ca.crt
  {{- end }}
{{- end }}
{{- with .Values.trustedProxies }}
trusted_proxies: {{ toJson . }}
{{- end }}
{{- if eq .Values.mode "forwardAuth" }}
forward_auth:
  enabled: true
  grpc: {{ if .Values.forwardAuth.grpc }}{{ printf "%s:%d" .Values.listenAddress (int .Values.ports.grpc) | quote }}{{ else }}null{{ end }}
{{- end }}
limits:
  workers: {{ int .Values.workers }}
lifecycle:
  drain_delay: {{ int .Values.lifecycle.drainDelaySeconds }}s
  drain_timeout: {{ int .Values.lifecycle.drainTimeoutSeconds }}s
  termination_grace: {{ int .Values.terminationGracePeriodSeconds }}s
{{- end -}}

{{- /* config.yaml: the derived configuration with .Values.config over it. */ -}}
{{- define "doorward-chart.config" -}}
{{- $derived := include "doorward-chart.derivedConfig" . | fromYaml -}}
{{- with $derived.Error -}}{{- fail (printf "the values do not come to YAML: %s" .) -}}{{- end -}}
{{- toYaml (mergeOverwrite $derived (deepCopy (default dict .Values.config))) -}}
{{- end -}}

{{- /* The part of the configuration that changes only with a restart; of routes that is the first stream. */ -}}
{{- define "doorward-chart.restartConfig" -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- $sessions := default dict $config.sessions -}}
{{- $token := omit (default dict $sessions.token) "keys" -}}
{{- $streams := false -}}
{{- range default list $config.routes -}}{{- if .stream -}}{{- $streams = true -}}{{- end -}}{{- end -}}
{{- $rest := omit $config "routes" "trusted_proxies" "cookie" "identity_headers" "sessions" -}}
{{- toJson (dict "sessions" (omit $sessions "token") "token" $token "streams" $streams "rest" $rest) -}}
{{- end -}}

{{- define "doorward-chart.checksums" -}}
{{- if not .Values.existingConfigMap -}}
{{- if eq .Values.reload.strategy "rollout" -}}
checksum/config: {{ include "doorward-chart.config" . | sha256sum }}
{{- if .Values.secrets.values }}
checksum/secrets: {{ toJson .Values.secrets.values | sha256sum }}
{{- end }}
{{- else -}}
checksum/restart: {{ include "doorward-chart.restartConfig" . | sha256sum }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* "true" when sessions or the directory are a file in /var/lib/doorward. */ -}}
{{- define "doorward-chart.hasState" -}}
{{- if .Values.existingConfigMap -}}
true
{{- else -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- $store := dig "store" "sqlite:" (default dict $config.sessions) -}}
{{- $directory := dig "url" "sqlite:" (default dict $config.directory) -}}
{{- if or (hasPrefix "sqlite:" $store) (hasPrefix "sqlite:" $directory) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- /* "true" when only one pod may have the state at a time. */ -}}
{{- define "doorward-chart.isSingle" -}}
{{- if .Values.existingConfigMap -}}
{{- if .Values.persistence.enabled -}}true{{- end -}}
{{- else -}}
{{- $config := include "doorward-chart.config" . | fromYaml -}}
{{- if or (hasPrefix "sqlite:" (dig "store" "sqlite:" (default dict $config.sessions))) .Values.persistence.enabled -}}true{{- end -}}
{{- end -}}
{{- end -}}

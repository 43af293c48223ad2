{{- /* This library's values: under its name, or under the alias `doorward`. */ -}}
{{- define "doorward.values" -}}
{{- $values := default (index .Values "doorward-lib") .Values.doorward -}}
{{- if not (dig "image" "repository" "" (default dict $values)) -}}
{{- fail "doorward: no values; name the dependency doorward-lib, or give it the alias doorward" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{- /* What the values come to as Doorward's configuration, without the value config. Takes the values. */ -}}
{{- define "doorward.derivedConfig" -}}
{{- $files := "/run/secrets/doorward" -}}
listen: {{ printf "%s:%d" .listenAddress (int .ports.proxy) | quote }}
admin:
  listen: {{ printf "%s:%d" .listenAddress (int .ports.admin) | quote }}
upstream:
  url: {{ .upstream.url | quote }}
{{- if .sessions.store }}
sessions:
  store: {{ .sessions.store | quote }}
  token:
    keys:
      {{- range .sessions.tokenKeys }}
      - id: {{ int .id }}
        secret: { file: {{ printf "%s/%s" $files .secretKey }} }
      {{- else }} []
      {{- end }}
  {{- if or .redis.passwordSecretKey .redis.tls.existingCASecret }}
  redis:
    {{- with .redis.passwordSecretKey }}
    password: { file: {{ printf "%s/%s" $files . }} }
    {{- end }}
    {{- if .redis.tls.existingCASecret }}
    ca: {{ $files }}/redis-ca.crt
    {{- end }}
  {{- end }}
{{- end }}
{{- if .directory.url }}
directory:
  url: {{ .directory.url | quote }}
  {{- with .directory.passwordSecretKey }}
  password: { file: {{ printf "%s/%s" $files . }} }
  {{- end }}
  {{- if .directory.tls.existingCASecret }}
  ca: {{ $files }}/directory-ca.crt
  {{- end }}
{{- end }}
limits:
  workers: {{ int .workers }}
lifecycle:
  drain_delay: {{ int .lifecycle.drainDelaySeconds }}s
  drain_timeout: {{ int .lifecycle.drainTimeoutSeconds }}s
  termination_grace: {{ include "doorward.graceOf" .lifecycle }}s
{{- end -}}

{{- /* config.yaml. */ -}}
{{- define "doorward.config" -}}
{{- $values := include "doorward.values" . | fromYaml -}}
{{- include "doorward.validate" $values -}}
{{- include "doorward.effectiveConfig" $values -}}
{{- end -}}

{{- define "doorward.effectiveConfig" -}}
{{- toYaml (mergeOverwrite (include "doorward.derivedConfig" . | fromYaml) (deepCopy (default dict .config))) -}}
{{- end -}}

{{- /* "true" when sessions or the directory are a file in /var/lib/doorward. Takes the values. */ -}}
{{- define "doorward.hasState" -}}
{{- $config := include "doorward.effectiveConfig" . | fromYaml -}}
{{- $store := dig "store" "sqlite:" (default dict $config.sessions) -}}
{{- $directory := dig "url" "sqlite:" (default dict $config.directory) -}}
{{- if or (hasPrefix "sqlite:" $store) (hasPrefix "sqlite:" $directory) -}}true{{- end -}}
{{- end -}}

{{- /* The name of this library's ConfigMap and NetworkPolicy. */ -}}
{{- define "doorward.objectName" -}}
{{- printf "%s-doorward" (.Release.Name | trunc 54 | trimSuffix "-") -}}
{{- end -}}

{{- /* The ConfigMap with config.yaml, a whole object. */ -}}
{{- define "doorward.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "doorward.objectName" . }}
  namespace: {{ .Release.Namespace }}
data:
  config.yaml: |
    {{- include "doorward.config" . | nindent 4 }}
{{- end -}}

{{- /* "true" when there is anything in /run/secrets/doorward. Takes the values. */ -}}
{{- define "doorward.hasSecretFiles" -}}
{{- if or .existingSecret .redis.tls.existingCASecret .directory.tls.existingCASecret -}}true{{- end -}}
{{- end -}}

{{- /* Items for volumes. Whole directories, never subPath: only these follow a change. */ -}}
{{- define "doorward.volumes" -}}
{{- $values := include "doorward.values" . | fromYaml -}}
- name: doorward-config
  configMap:
    name: {{ include "doorward.objectName" . }}
{{- if include "doorward.hasSecretFiles" $values }}
- name: doorward-secrets
  projected:
    # Read by UID 65532; a group would need fsGroup, which is the pod's. Only the sidecar mounts it.
    defaultMode: 0444
    sources:
      {{- with $values.existingSecret }}
      - secret:
          name: {{ . }}
      {{- end }}
      {{- range $whose, $tls := dict "redis" $values.redis.tls "directory" $values.directory.tls }}
      {{- if $tls.existingCASecret }}
      - secret:
          name: {{ $tls.existingCASecret }}
          items:
            - key: {{ $tls.caKey }}
              path: {{ $whose }}-ca.crt
      {{- end }}
      {{- end }}
{{- end }}
{{- if include "doorward.hasState" $values }}
- name: doorward-state
  {{- toYaml $values.state | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Annotations of the pod: a change replaces it. With reload.strategy hot only what needs a restart counts. */ -}}
{{- define "doorward.podAnnotations" -}}
{{- $values := include "doorward.values" . | fromYaml -}}
{{- $config := include "doorward.effectiveConfig" $values | fromYaml -}}
{{- if eq $values.reload.strategy "rollout" -}}
checksum/doorward-config: {{ toJson $config | sha256sum }}
{{- else -}}
{{- $sessions := default dict $config.sessions -}}
{{- $token := omit (default dict $sessions.token) "keys" -}}
{{- $streams := false -}}
{{- range default list $config.routes -}}{{- if .stream -}}{{- $streams = true -}}{{- end -}}{{- end -}}
{{- $rest := omit $config "routes" "trusted_proxies" "cookie" "identity_headers" "sessions" -}}
{{- $restart := dict "sessions" (omit $sessions "token") "token" $token "streams" $streams "rest" $rest -}}
checksum/doorward-restart: {{ toJson $restart | sha256sum }}
{{- end -}}
{{- end -}}

{{- /* The least terminationGracePeriodSeconds of the pod. */ -}}
{{- define "doorward.gracePeriodSeconds" -}}
{{- include "doorward.graceOf" (include "doorward.values" . | fromYaml).lifecycle -}}
{{- end -}}

{{- define "doorward.graceOf" -}}
{{- add (int .drainDelaySeconds) (int .drainTimeoutSeconds) 5 -}}
{{- end -}}

{{- /* The NetworkPolicy, a whole object; empty when off. Takes (dict "root" $ "selector" <labels of the pods>). */ -}}
{{- define "doorward.networkPolicy" -}}
{{- $values := include "doorward.values" .root | fromYaml -}}
{{- if $values.networkPolicy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "doorward.objectName" .root }}
  namespace: {{ .root.Release.Namespace }}
spec:
  podSelector:
    matchLabels:
      {{- toYaml .selector | nindent 6 }}
  policyTypes:
    - Ingress
    {{- if $values.networkPolicy.egress }}
    - Egress
    {{- end }}
  # The application's own port is not here: requests come through Doorward.
  ingress:
    - ports:
        - port: {{ int $values.ports.proxy }}
          protocol: TCP
      {{- with $values.networkPolicy.ingressFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with $values.networkPolicy.metricsFrom }}
    - ports:
        - port: {{ int $values.ports.admin }}
          protocol: TCP
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  {{- with $values.networkPolicy.egress }}
  egress:
    - ports:
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* A PodMonitor, a whole object. Takes (dict "root" $ "selector" <labels of the pods>). */ -}}
{{- define "doorward.podMonitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "doorward.objectName" .root }}
  namespace: {{ .root.Release.Namespace }}
spec:
  selector:
    matchLabels:
      {{- toYaml .selector | nindent 6 }}
  podMetricsEndpoints:
    - port: doorward-admin
      path: /metrics
{{- end -}}

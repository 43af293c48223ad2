{{- /* "true" when the sidecar is a native one. */ -}}
{{- define "doorward.native" -}}
{{- $native := (include "doorward.values" . | fromYaml).native -}}
{{- if kindIs "bool" $native -}}
{{- if $native -}}true{{- end -}}
{{- else if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version -}}
true
{{- end -}}
{{- end -}}

{{- define "doorward.image" -}}
{{- $image := (include "doorward.values" . | fromYaml).image -}}
{{- $name := $image.repository -}}
{{- if $image.registry -}}{{- $name = printf "%s/%s" $image.registry $name -}}{{- end -}}
{{- if $image.digest -}}{{- printf "%s@%s" $name $image.digest -}}{{- else -}}{{- printf "%s:%s" $name $image.tag -}}{{- end -}}
{{- end -}}

{{- /* The targetPort of your Service: a number, as names of a native sidecar's ports fail before 1.32. */ -}}
{{- define "doorward.proxyPort" -}}
{{- int (include "doorward.values" . | fromYaml).ports.proxy -}}
{{- end -}}

{{- /* The container, whole. */ -}}
{{- define "doorward.container" -}}
{{- $values := include "doorward.values" . | fromYaml -}}
{{- include "doorward.validate" $values -}}
name: doorward
image: {{ include "doorward.image" . | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [serve, --config, /etc/doorward/config.yaml]
{{- if include "doorward.native" . }}
restartPolicy: Always
{{- end }}
ports:
  - name: doorward-http
    containerPort: {{ int $values.ports.proxy }}
    protocol: TCP
  - name: doorward-admin
    containerPort: {{ int $values.ports.admin }}
    protocol: TCP
{{- with $values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $probe, $path := dict "startup" "/startupz" "liveness" "/livez" "readiness" "/readyz" }}
{{ $probe }}Probe:
  httpGet:
    path: {{ $path }}
    port: doorward-admin
  {{- toYaml (index $values.probes $probe) | nindent 2 }}
{{- end }}
{{- if include "doorward.native" . }}
lifecycle:
  preStop:
    # At the pod's deletion; SIGTERM comes only after the application has ended.
    exec:
      command: [/doorward, drain]
{{- end }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - name: doorward-config
    mountPath: /etc/doorward
    readOnly: true
  {{- if include "doorward.hasSecretFiles" $values }}
  - name: doorward-secrets
    mountPath: /run/secrets/doorward
    readOnly: true
  {{- end }}
  {{- if include "doorward.hasState" $values }}
  - name: doorward-state
    mountPath: /var/lib/doorward
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* An item for initContainers, last; empty when the sidecar is a plain container. */ -}}
{{- define "doorward.initContainers" -}}
{{- if include "doorward.native" . -}}
- {{ include "doorward.container" . | nindent 2 | trim }}
{{- end -}}
{{- end -}}

{{- /* An item for containers; empty when the sidecar is a native one. */ -}}
{{- define "doorward.containers" -}}
{{- if not (include "doorward.native" .) -}}
- {{ include "doorward.container" . | nindent 2 | trim }}
{{- end -}}
{{- end -}}

{{- /* lifecycle of the application's container: it outlives the endpoint, which takes a moment to go. */ -}}
{{- define "doorward.appLifecycle" -}}
{{- $seconds := add (int (include "doorward.values" . | fromYaml).lifecycle.drainDelaySeconds) 1 -}}
preStop:
  {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  sleep:
    seconds: {{ $seconds }}
  {{- else }}
  exec:
    command: [sleep, {{ $seconds | quote }}]
  {{- end }}
{{- end -}}

{{- define "doorward-chart.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- /* 48 and not 63: -prometheus and the like follow. */ -}}
{{- define "doorward-chart.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Immutable in a Deployment: never add to these. */ -}}
{{- define "doorward-chart.selectorLabels" -}}
app.kubernetes.io/name: {{ include "doorward-chart.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Without the chart's version: a new chart alone replaces no pods. */ -}}
{{- define "doorward-chart.podLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "doorward-chart.labels" -}}
{{ include "doorward-chart.selectorLabels" . }}
{{ include "doorward-chart.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "doorward-chart.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "doorward-chart.labels" . | nindent 2 }}
{{- end -}}

{{- define "doorward-chart.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "doorward-chart.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.image" -}}
{{- $name := .Values.image.repository -}}
{{- if .Values.image.registry -}}{{- $name = printf "%s/%s" .Values.image.registry $name -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.configMapName" -}}
{{- default (include "doorward-chart.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{- /* The name of the Secret with the files of /run/secrets/doorward; empty when there is none. */ -}}
{{- define "doorward-chart.secretName" -}}
{{- if .Values.secrets.existingSecret -}}
{{- .Values.secrets.existingSecret -}}
{{- else if .Values.secrets.values -}}
{{- include "doorward-chart.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "doorward-chart.claimName" -}}
{{- default (include "doorward-chart.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{- /* How many pods there are at least. */ -}}
{{- define "doorward-chart.replicasMin" -}}
{{- if .Values.autoscaling.enabled -}}{{- int .Values.autoscaling.minReplicas -}}{{- else -}}{{- int .Values.replicaCount -}}{{- end -}}
{{- end -}}

{{- /* How many pods there may be. */ -}}
{{- define "doorward-chart.replicasMax" -}}
{{- if .Values.autoscaling.enabled -}}{{- int .Values.autoscaling.maxReplicas -}}{{- else -}}{{- int .Values.replicaCount -}}{{- end -}}
{{- end -}}

{{- /* A probe of the admin port: (dict "path" "/livez" "numbers" .Values.probes.liveness). */ -}}
{{- define "doorward-chart.probe" -}}
httpGet:
  path: {{ .path }}
  port: admin
{{ toYaml .numbers }}
{{- end -}}

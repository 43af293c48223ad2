{{- define "legacy-app.selector" -}}
app.kubernetes.io/name: legacy-app
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

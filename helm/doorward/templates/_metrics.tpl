{{- /* What endpoints of both monitors have in common. */ -}}
{{- define "doorward-chart.scrape" -}}
interval: {{ .interval }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "doorward-chart.testLabels" -}}
app.kubernetes.io/name: {{ include "doorward-chart.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* The groups of files/rules.yaml without the alerts that are disabled. */ -}}
{{- define "doorward-chart.ruleGroups" -}}
{{- $file := required "the chart is incomplete: files/rules.yaml is missing" (.Files.Get "files/rules.yaml") | fromYaml -}}
{{- $disabled := .Values.metrics.prometheusRule.disabled -}}
{{- $known := list -}}
{{- range $group := $file.groups }}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- with $rule.alert -}}{{- $known = append $known . -}}{{- end -}}
{{- if not (has (default "" $rule.alert) $disabled) -}}{{- $rules = append $rules $rule -}}{{- end -}}
{{- end -}}
{{- if $rules }}
{{ toYaml (list (merge (dict "rules" $rules) (omit $group "rules"))) }}
{{- end -}}
{{- end -}}
{{- range $disabled -}}
{{- if not (has . $known) -}}
{{- fail (printf "metrics.prometheusRule.disabled names %q, which is no alert; there are: %s" . (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

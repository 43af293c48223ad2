{{- define "doorward-chart.hasSecretFiles" -}}
{{- if or (include "doorward-chart.secretName" .) .Values.redis.tls.existingCASecret .Values.directory.tls.existingCASecret -}}true{{- end -}}
{{- end -}}

{{- /* Whole directories, never subPath: only these follow a changed ConfigMap or Secret. */ -}}
{{- define "doorward-chart.podVolumes" -}}
- name: config
  configMap:
    name: {{ include "doorward-chart.configMapName" . }}
{{- if include "doorward-chart.hasSecretFiles" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- with include "doorward-chart.secretName" . }}
      - secret:
          name: {{ . }}
      {{- end }}
      {{- range $whose, $tls := dict "redis" .Values.redis.tls "directory" .Values.directory.tls }}
      {{- if $tls.existingCASecret }}
      - secret:
          name: {{ $tls.existingCASecret }}
          items:
            - key: {{ $tls.caKey }}
              path: {{ $whose }}-ca.crt
      {{- end }}
      {{- end }}
{{- end }}
{{- if include "doorward-chart.hasState" . }}
- name: state
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "doorward-chart.claimName" . }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "doorward-chart.placement" -}}
{{- if .Values.topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if and .Values.topologySpread.enabled (gt (int (include "doorward-chart.replicasMax" .)) 1) -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "doorward-chart.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

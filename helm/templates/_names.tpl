{{- define "handoff.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* Room is left for the longest suffix, `-dashboards-…`, within 63 characters. */ -}}
{{- define "handoff.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains (include "handoff.name" .) .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "handoff.name" .) | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "handoff.selector" -}}
app.kubernetes.io/name: {{ include "handoff.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "handoff.labels" -}}
{{ include "handoff.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- /* Takes one of `image`, `clamav.image`, `tests.image`, with `default` for its tag. */ -}}
{{- define "handoff.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .default }}
{{- end }}
{{- end }}

{{- define "handoff.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "handoff.fullname" .) }}
{{- else }}
{{- required "serviceAccount.name has to be set where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The hook runs before the chart's own account exists, so it has one of its own. */ -}}
{{- define "handoff.migrateServiceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- include "handoff.fullname" . }}-migrate
{{- else }}
{{- include "handoff.serviceAccount" . }}
{{- end }}
{{- end }}

{{- define "handoff.isSqlite" -}}
{{- if .Values.config.database.url }}true{{ end }}
{{- end }}

{{- define "handoff.hasVolume" -}}
{{- if or (include "handoff.isSqlite" .) (hasPrefix "file:" .Values.config.blobs.url) }}true{{ end }}
{{- end }}

{{- define "handoff.hasSecrets" -}}
{{- if or .Values.secrets.existingSecret .Values.secrets.secretProviderClass }}true{{ end }}
{{- end }}

{{- define "handoff.hasPolicies" -}}
{{- if or .Values.policies.files .Values.policies.existingConfigMap }}true{{ end }}
{{- end }}

{{- define "handoff.mostReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicaCount }}{{ end }}
{{- end }}

{{- /* Host of the public URL, without a port. */ -}}
{{- define "handoff.host" -}}
{{- (urlParse .Values.config.server.public_url).hostname }}
{{- end }}

{{- /* Whole seconds of a time as the configuration writes it: `20 s`, `2 min`, 20; rounded up. */ -}}
{{- define "handoff.seconds" -}}
{{- $text := toString . | replace "_" "" }}
{{- $number := regexFind "^[0-9]+" $text | int64 }}
{{- $unit := regexFind "[a-z]+$" $text }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "min" }}{{ mul $number 60 }}
{{- else if eq $unit "h" }}{{ mul $number 3600 }}
{{- else }}{{ $number }}{{ end }}
{{- end }}

{{- define "handoff.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "handoff.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The volume with secrets. Takes `existingSecret`, `secretProviderClass`, and maybe the one `entry` that is needed. */ -}}
{{- define "handoff.secretVolume" -}}
- name: secrets
  {{- if .secretProviderClass }}
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes:
      secretProviderClass: {{ .secretProviderClass }}
  {{- else }}
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    {{- with .entry }}
    items:
      - key: {{ . }}
        path: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}

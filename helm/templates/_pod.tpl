{{- define "handoff.mounts" -}}
- name: config
  mountPath: /etc/handoff
  readOnly: true
{{- if include "handoff.hasSecrets" . }}
- name: secrets
  mountPath: /run/secrets/handoff
  readOnly: true
{{- end }}
{{- if include "handoff.hasPolicies" . }}
- name: policies
  mountPath: /etc/handoff-policies
  readOnly: true
{{- end }}
{{- if include "handoff.hasVolume" . }}
- name: data
  mountPath: /var/lib/handoff
- name: tmp
  mountPath: /tmp
{{- end }}
{{- end }}

{{- /* clamd listens on loopback alone, and freshclam brings its signatures. Until there are some, nothing is released. */ -}}
{{- define "handoff.clamav" -}}
- name: clamd
  image: {{ include "handoff.image" (dict "image" .Values.clamav.image) }}
  imagePullPolicy: {{ .Values.clamav.image.pullPolicy }}
  command: [clamd, --foreground, --config-file=/etc/clamav-handoff/clamd.conf]
  securityContext:
    {{- include "handoff.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .Values.clamav.resources | nindent 4 }}
  volumeMounts:
    - name: clamav-config
      mountPath: /etc/clamav-handoff
      readOnly: true
    - name: signatures
      mountPath: /var/lib/clamav
      readOnly: true
    - name: clamav-tmp
      mountPath: /tmp
- name: freshclam
  image: {{ include "handoff.image" (dict "image" .Values.clamav.image) }}
  imagePullPolicy: {{ .Values.clamav.image.pullPolicy }}
  command: [freshclam, --daemon, --foreground, --stdout, --config-file=/etc/clamav-handoff/freshclam.conf]
  securityContext:
    {{- include "handoff.containerSecurity" . | nindent 4 }}
  resources:
    requests: { cpu: 10m, memory: 64Mi }
    limits: { memory: 1Gi }
  volumeMounts:
    - name: clamav-config
      mountPath: /etc/clamav-handoff
      readOnly: true
    - name: signatures
      mountPath: /var/lib/clamav
    - name: clamav-tmp
      mountPath: /tmp
{{- end }}

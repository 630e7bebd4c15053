{{- /*
The server's configuration as TOML. Go's own writer makes fractions of all numbers that come out of YAML, so values are written
here. Strings are JSON's, which TOML reads alike. What ends in `_file` becomes a path below the secrets.
*/ -}}
{{- define "handoff.toml.value" -}}
{{- if kindIs "string" . }}{{ toJson . }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else if kindIs "map" . }}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s = %s" (toJson $key) (include "handoff.toml.value" $value)) }}
{{- end }}{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . }}
{{- $items := list }}
{{- range . }}{{ $items = append $items (include "handoff.toml.value" .) }}{{ end }}[{{ join ", " $items }}]
{{- else if eq (float64 .) (float64 (int64 .)) }}{{ printf "%d" (int64 .) }}
{{- else }}{{ . }}
{{- end }}
{{- end }}

{{- define "handoff.toml.keys" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- if hasSuffix "_file" $key }}
{{ $key }} = {{ printf "/run/secrets/handoff/%s" $value | toJson }}
{{- else }}
{{ $key }} = {{ include "handoff.toml.value" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "handoff.toml" -}}
{{- range $name, $section := . }}
{{- if kindIs "slice" $section }}
{{- range $section }}
[[{{ $name }}]]{{ include "handoff.toml.keys" . }}
{{ end }}
{{- else if $section }}
[{{ $name }}]{{ include "handoff.toml.keys" $section }}
{{ end }}
{{- end }}
{{- end }}

{{- /* What the values say, and what the chart decides. */ -}}
{{- define "handoff.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $server := merge (dict "listen" (printf "%s:8080" .Values.bindAddress) "replicas" (include "handoff.mostReplicas" . | int64)) $config.server }}
{{- $_ := set $config "server" $server }}
{{- $_ := set $config "admin" (dict "listen" (printf "%s:9090" .Values.bindAddress)) }}
{{- if .Values.policies.files }}
{{- $paths := dict }}
{{- range $name, $_ := .Values.policies.files }}
{{- if hasSuffix ".cedar" $name }}{{ $_ := set $paths "directory" "/etc/handoff-policies" }}{{ end }}
{{- end }}
{{- if not $paths.directory }}
{{- range $name, $_ := .Values.policies.files }}
{{- $_ := set $paths (trimSuffix ".toml" $name) (printf "/etc/handoff-policies/%s" $name) }}
{{- end }}
{{- end }}
{{- $_ := set $config "policies" $paths }}
{{- else if .Values.policies.existingConfigMap }}
{{- $_ := set $config "policies" (dict "directory" "/etc/handoff-policies") }}
{{- end }}
{{- if .Values.clamav.enabled }}
{{- $scan := dict "kind" "clamav" "address" "127.0.0.1:3310" "max_size" (printf "%d MiB" (int64 .Values.clamav.maxSizeMiB)) }}
{{- $_ := set $config "scan" (merge $scan ($config.scan | default dict)) }}
{{- end }}
{{- include "handoff.toml" $config | trim }}
{{- end }}

{{- /* As much of it as `handoff migrate` asks for: no secret but the database's URL. */ -}}
{{- define "handoff.migrateConfig" -}}
{{- $issuers := list }}
{{- range .Values.config.issuers }}{{ $issuers = append $issuers (pick . "issuer" "audience" "tenant") }}{{ end }}
{{- $entry := .Values.migrations.databaseUrlFile | default .Values.config.database.url_file }}
{{- $config := dict
  "server" (pick .Values.config.server "public_url")
  "database" (dict "url_file" $entry)
  "blobs" (pick .Values.config.blobs "url")
  "issuers" $issuers
  "log" (.Values.config.log | default dict) }}
{{- include "handoff.toml" $config | trim }}
{{- end }}

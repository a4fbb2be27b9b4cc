{{- define "forward-pass.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "forward-pass.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "forward-pass.labels" -}}
{{ include "forward-pass.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "forward-pass.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every pod has: no privileges, no token of the cluster's API. */ -}}
{{- define "forward-pass.pod" -}}
enableServiceLinks: false # a Service named `serve` would set SERVE_PORT=tcp://...
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "forward-pass.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
{{- with .Values.store.secret }}
envFrom:
  - secretRef: { name: {{ . }} }
{{- end }}
{{- end }}

{{- define "forward-pass.storeEnv" -}}
- name: MODEL_STORE
  value: {{ .Values.store.url | default "/models" | quote }}
{{- end }}

{{- /* The pod of a job; takes root, component, image, command, env and resources. */ -}}
{{- define "forward-pass.jobPod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "forward-pass.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  restartPolicy: Never
  {{- include "forward-pass.pod" $root | nindent 2 }}
  containers:
    - name: {{ .component }}
      image: "{{ .image }}:{{ include "forward-pass.tag" $root }}"
      {{- include "forward-pass.container" $root | nindent 6 }}
      command:
        {{- toYaml .command | nindent 8 }}
      env:
        {{- include "forward-pass.storeEnv" $root | nindent 8 }}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        {{- if not $root.Values.store.url }}
        - { name: models, mountPath: /models }
        {{- end }}
        {{- if $root.Values.training.files }}
        - { name: jobs, mountPath: /jobs, readOnly: true }
        {{- end }}
  volumes:
    - { name: tmp, emptyDir: {} }
    {{- if not $root.Values.store.url }}
    - { name: models, persistentVolumeClaim: { claimName: {{ $root.Values.store.claim }} } }
    {{- end }}
    {{- if $root.Values.training.files }}
    - { name: jobs, configMap: { name: {{ include "forward-pass.name" $root }}-jobs } }
    {{- end }}
{{- end }}

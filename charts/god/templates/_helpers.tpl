{{- define "god.name" -}}
{{- $name := .Values.nameOverride | default .Release.Name -}}
{{- $full := ternary $name (printf "%s-god" $name) (contains "god" $name) -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "god.operator" -}}
{{- printf "%s-operator" (include "god.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "god.account" -}}
{{- .Values.serviceAccount.name | default (include "god.operator" .) -}}
{{- end -}}

{{- define "god.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "god.selector" -}}
app.kubernetes.io/name: god-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "god.labels" -}}
{{ include "god.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "god.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "god.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What the operator may do where clusters are. */}}
{{- define "god.rules" -}}
- apiGroups: [god-db.io]
  resources: [godclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [god-db.io]
  resources: [godclusters/status]
  verbs: [patch]
- apiGroups: [god-db.io]
  resources: [godclusters/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, prometheusrules]
  verbs: [get, create, patch, delete]
{{- end -}}

{{- define "ipvs-operator.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ipvs-operator
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ipvs-operator.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "ipvs-operator.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "ipvs-operator.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The agents, as subjects of a FlowSchema. */}}
{{- define "ipvs-operator.flow-agents" -}}
- kind: ServiceAccount
  serviceAccount:
    name: ipvs-agent
    namespace: {{ .Release.Namespace }}
# Directors outside the cluster, with a certificate.
- kind: Group
  group:
    name: ipvs.dev:directors
{{- end }}

{{/* The controller, as a subject of a FlowSchema. */}}
{{- define "ipvs-operator.flow-controller" -}}
- kind: ServiceAccount
  serviceAccount:
    name: ipvs-controller
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The DaemonSet of a group, which is also the name in its labels. */}}
{{- define "ipvs-operator.agent-name" -}}
{{ eq . "default" | ternary "ipvs-agent" (printf "ipvs-agent-%s" .) }}
{{- end }}

{{/* The labels of a group's nodes. */}}
{{- define "ipvs-operator.agent-nodes" -}}
{{- $label := eq .name "default" | ternary "true" .name }}
{{- $nodes := .agent.nodeSelector | default (dict "ipvs.dev/director" $label) }}
{{- merge (dict "kubernetes.io/os" "linux") $nodes | toYaml }}
{{- end }}

{{/* Whether the controller upgrades the definitions: also if the value is missing,
as with --reuse-values after a release that did not have it. */}}
{{- define "ipvs-operator.upgrades-definitions" -}}
{{ ne (toString .Values.controller.upgradeDefinitions) "false" }}
{{- end }}

{{/* Fails, with the command that helps, if a DirectorGroup belongs to another
release or to none. Helm would fail too, without the command. */}}
{{- define "ipvs-operator.check-owner" -}}
{{- $found := lookup "ipvs.dev/v1alpha1" "DirectorGroup" "" .group }}
{{- if and $found (not .root.Values.takeOwnership) }}
{{- $annotations := $found.metadata.annotations | default dict }}
{{- $owner := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if or (ne $owner .root.Release.Name) (ne $namespace .root.Release.Namespace) }}
{{- $whose := $owner | empty | ternary "to no release" (printf "to the release %s in namespace %s" $owner $namespace) }}
{{- fail (printf "\n\nDirectorGroup %s exists, and belongs %s. To take it over, with the spec from your values:\n\n  helm upgrade --install %s CHART --namespace %s --take-ownership --set takeOwnership=true\n\nTo leave it alone: --set-json 'directorGroups.%s=null'\n" .group $whose .root.Release.Name .root.Release.Namespace (replace "." "\\." .group)) }}
{{- end }}
{{- end }}
{{- end }}

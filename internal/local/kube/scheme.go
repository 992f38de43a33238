package kube

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// words are the few kinds of objects that this room speaks of, and how they
// become bytes and query parameters.
type words struct {
	codecs     serializer.CodecFactory
	parameters runtime.ParameterCodec
}

func newWords() words {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion,
		&corev1.Pod{}, &corev1.PodList{}, &corev1.PodLogOptions{},
		&corev1.Event{}, &corev1.EventList{},
		&corev1.Node{}, &corev1.NodeList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	s.AddKnownTypes(batchv1.SchemeGroupVersion, &batchv1.Job{}, &batchv1.JobList{})
	metav1.AddToGroupVersion(s, batchv1.SchemeGroupVersion)
	return words{serializer.NewCodecFactory(s), runtime.NewParameterCodec(s)}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Bucket stores payloads under folder/UnixNano-n. The original's key has no counter, but its folder is said to keep
// equal timestamps apart; with one folder it takes the counter n, or some objects would overwrite others.
type Bucket struct {
	client *s3.Client
	name   string
	folder string
	count  atomic.Uint64
}

// openBucket takes region, credentials and the mode of checksums from AWS's own variables.
func openBucket(ctx context.Context, chosen settings) (*Bucket, error) {
	// The SDK keeps 10 idle connections a host: with more workers most puts would open one of their own.
	transport := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns = chosen.maxWorkers
		t.MaxIdleConnsPerHost = chosen.maxWorkers
	})
	loaded, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(transport))
	if err != nil {
		return nil, err
	}
	client := s3.NewFromConfig(loaded, func(options *s3.Options) {
		if chosen.endpoint != "" {
			options.BaseEndpoint = aws.String(chosen.endpoint)
			options.UsePathStyle = true
		}
	})
	return &Bucket{client: client, name: chosen.bucket, folder: chosen.folder}, nil
}

// Put stores one payload as one private object.
func (b *Bucket) Put(ctx context.Context, payload Payload) error {
	body, err := payload.Body()
	if err != nil {
		return err
	}
	key := b.key(time.Now())
	_, err = b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket:      &b.name,
		Key:         &key,
		Body:        bytes.NewReader(body),
		ACL:         types.ObjectCannedACLPrivate,
		ContentType: aws.String("application/octet-stream"),
	})
	return err
}

// key returns another key for every call, also at one moment.
func (b *Bucket) key(now time.Time) string {
	return fmt.Sprintf("%s/%d-%d", b.folder, now.UnixNano(), b.count.Add(1))
}

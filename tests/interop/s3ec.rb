# Reads a sealed object with AWS's encryption client for Ruby: s3ec.rb v1|v2 URL BUCKET KEY KMS_KEY, the message to stdout.
# With a file behind it, v1 stores that file instead, as the first clients did: AES-CBC, the key wrapped by KMS.
require 'aws-sdk-s3'
form, url, bucket, key, kms_key, file = ARGV
common = { endpoint: url, region: 'us-east-1', credentials: Aws::Credentials.new('test', 'test') }
s3 = Aws::S3::Client.new(force_path_style: true, **common)
kms = Aws::KMS::Client.new(**common)
client =
  if form == 'v1'
    Aws::S3::Encryption::Client.new(client: s3, kms_client: kms, kms_key_id: kms_key)
  else
    Aws::S3::EncryptionV2::Client.new(
      client: s3, kms_client: kms, kms_key_id: :kms_allow_decrypt_with_any_cmk, key_wrap_schema: :kms_context,
      content_encryption_schema: :aes_gcm_no_padding, security_profile: :v2_and_legacy
    )
  end
if file
  client.put_object(bucket: bucket, key: key, body: File.binread(file))
  exit
end
$stdout.binmode
$stdout.write(client.get_object(bucket: bucket, key: key).body.read)

"""Which resources each operation is about, service by service, as AWS's Service Authorization Reference has them.

A line is `resources: operations`. A resource is what stands in the ARN after the account, or a whole ARN; `{Name}` is a
parameter of the operation, `{a,b}` the first of two that is given, `{list[].name}` one resource per item. A parameter
that holds an ARN already is the resource. `{Name|reader}` is read by a function of `embedded.aws.iam.readers`, which
may know what stands for a missing one. `Action@resource` gives the action another name than the operation's.
`resource?` falls away without its parameter; else a star is written for it. Several resources are all asked for.

An operation that no line has is about no resource: only a statement about `*` can grant it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from embedded.aws.account import ACCOUNT, PARTITION


class Service(NamedTuple):
    """prefix: of its actions and ARNs; models: names that boto3 has for it; lines: the table."""

    prefix: str
    models: tuple[str, ...]
    lines: str


class Asked(NamedTuple):
    """One action of an operation, and the template of its resource."""

    action: str
    resource: str
    optional: bool


_BATCH = """
    job-definition/{jobDefinition} job-queue/{jobQueue}: SubmitJob
    job/{jobId}: CancelJob TerminateJob
    job-definition/{jobDefinitionName}: RegisterJobDefinition
    job-definition/{jobDefinition}: DeregisterJobDefinition
    job-queue/{jobQueueName} compute-environment/{computeEnvironmentOrder[].computeEnvironment}?: CreateJobQueue
    job-queue/{jobQueue} compute-environment/{computeEnvironmentOrder[].computeEnvironment}?: UpdateJobQueue
    job-queue/{jobQueue}: DeleteJobQueue GetJobQueueSnapshot SubmitServiceJob ListQuotaShares
    compute-environment/{computeEnvironmentName}: CreateComputeEnvironment
    compute-environment/{computeEnvironment}: DeleteComputeEnvironment UpdateComputeEnvironment
    scheduling-policy/{name}: CreateSchedulingPolicy
    scheduling-policy/{arn}: DeleteSchedulingPolicy UpdateSchedulingPolicy
    consumable-resource/{consumableResourceName}: CreateConsumableResource
    consumable-resource/{consumableResource}: DeleteConsumableResource DescribeConsumableResource
    consumable-resource/{consumableResource}: UpdateConsumableResource ListJobsByConsumableResource
    service-environment/{serviceEnvironmentName}: CreateServiceEnvironment
    service-environment/{serviceEnvironment}: DeleteServiceEnvironment UpdateServiceEnvironment
    service-job/{jobId}: TerminateServiceJob UpdateServiceJob
    job-queue/{jobQueue} job-queue/{jobQueue}/quota-share/{quotaShareName}: CreateQuotaShare
    {quotaShareArn}: DescribeQuotaShare UpdateQuotaShare DeleteQuotaShare
    {resourceArn}: ListTagsForResource TagResource UntagResource
"""
_SAGEMAKER = """
    training-job/{TrainingJobName}: CreateTrainingJob DescribeTrainingJob StopTrainingJob UpdateTrainingJob
    training-job/{TrainingJobName}: DeleteTrainingJob
    processing-job/{ProcessingJobName}: CreateProcessingJob DescribeProcessingJob StopProcessingJob DeleteProcessingJob
    transform-job/{TransformJobName}: CreateTransformJob DescribeTransformJob StopTransformJob
    hyper-parameter-tuning-job/{HyperParameterTuningJobName}: CreateHyperParameterTuningJob StopHyperParameterTuningJob
    hyper-parameter-tuning-job/{HyperParameterTuningJobName}: DescribeHyperParameterTuningJob
    hyper-parameter-tuning-job/{HyperParameterTuningJobName}: ListTrainingJobsForHyperParameterTuningJob
    model/{ModelName}: CreateModel DescribeModel DeleteModel
    endpoint-config/{EndpointConfigName}: CreateEndpointConfig DescribeEndpointConfig DeleteEndpointConfig
    endpoint/{EndpointName} endpoint-config/{EndpointConfigName}: CreateEndpoint UpdateEndpoint
    endpoint/{EndpointName}: DescribeEndpoint DeleteEndpoint UpdateEndpointWeightsAndCapacities
    endpoint/{EndpointName}: InvokeEndpoint InvokeEndpointAsync InvokeEndpointWithResponseStream
    model-package-group/{ModelPackageGroupName}: CreateModelPackageGroup DescribeModelPackageGroup
    model-package-group/{ModelPackageGroupName}: DeleteModelPackageGroup
    notebook-instance/{NotebookInstanceName}: CreateNotebookInstance DescribeNotebookInstance StartNotebookInstance
    notebook-instance/{NotebookInstanceName}: StopNotebookInstance DeleteNotebookInstance UpdateNotebookInstance
    pipeline/{PipelineName}: CreatePipeline DescribePipeline DeletePipeline UpdatePipeline StartPipelineExecution
    {ResourceArn}: AddTags DeleteTags ListTags
"""
_EMR = """
    cluster/{ClusterId}: AddInstanceFleet CancelSteps CreatePersistentAppUI DescribeCluster DescribeStep
    cluster/{ClusterId}: GetAutoTerminationPolicy GetClusterSessionCredentials GetManagedScalingPolicy
    cluster/{ClusterId}: GetOnClusterAppUIPresignedURL ListBootstrapActions ListInstanceFleets ListInstanceGroups
    cluster/{ClusterId}: ListInstances ListSteps ModifyCluster ModifyInstanceFleet ModifyInstanceGroups
    cluster/{ClusterId}: PutAutoScalingPolicy PutAutoTerminationPolicy PutManagedScalingPolicy
    cluster/{ClusterId}: RemoveAutoScalingPolicy RemoveAutoTerminationPolicy RemoveManagedScalingPolicy
    cluster/{ClusterId}: StartSession ListSessions
    cluster/{ClusterId}/session/{SessionId}: GetSession GetSessionEndpoint TerminateSession
    cluster/*: DescribePersistentAppUI GetPersistentAppUIPresignedURL
    cluster/{JobFlowId}: AddInstanceGroups AddJobFlowSteps
    cluster/{JobFlowIds[]}: DescribeJobFlows SetKeepJobFlowAliveWhenNoSteps SetTerminationProtection
    cluster/{JobFlowIds[]}: SetUnhealthyNodeReplacement SetVisibleToAllUsers TerminateJobFlows
    cluster/{ResourceId}: AddTags RemoveTags
    studio/{StudioId}: DeleteStudio DescribeStudio UpdateStudio CreateStudioSessionMapping DeleteStudioSessionMapping
    studio/{StudioId}: GetStudioSessionMapping UpdateStudioSessionMapping
    notebook-execution/{NotebookExecutionId}: DescribeNotebookExecution StopNotebookExecution
    cluster/{ExecutionEngine.Id} editor/{EditorId}: StartNotebookExecution
"""
_STATES = """
    {stateMachineArn}: StartExecution StartSyncExecution DescribeStateMachine UpdateStateMachine DeleteStateMachine
    {stateMachineArn}: PublishStateMachineVersion ListStateMachineVersions ListStateMachineAliases
    {stateMachineArn,mapRunArn}: ListExecutions
    {executionArn}: DescribeExecution StopExecution RedriveExecution GetExecutionHistory ListMapRuns
    {executionArn}: DescribeStateMachineForExecution
    {mapRunArn}: DescribeMapRun UpdateMapRun
    {stateMachineAliasArn}: DeleteStateMachineAlias DescribeStateMachineAlias UpdateStateMachineAlias
    {stateMachineVersionArn}: DeleteStateMachineVersion
    {routingConfiguration[].stateMachineVersionArn}: CreateStateMachineAlias
    stateMachine:{name}: CreateStateMachine
    activity:{name}: CreateActivity
    {activityArn}: DeleteActivity DescribeActivity GetActivityTask
    {resourceArn}: ListTagsForResource TagResource UntagResource
"""
_LAMBDA = """
    InvokeFunction@function:{FunctionName|function}: Invoke InvokeWithResponseStream
    function:{FunctionName|function}: InvokeAsync AddPermission RemovePermission GetPolicy
    function:{FunctionName|function}: CreateFunction DeleteFunction GetFunction GetFunctionConfiguration
    function:{FunctionName|function}: UpdateFunctionCode UpdateFunctionConfiguration PublishVersion
    function:{FunctionName|function}: ListVersionsByFunction CreateAlias DeleteAlias GetAlias UpdateAlias ListAliases
    function:{FunctionName|function}: GetFunctionConcurrency PutFunctionConcurrency DeleteFunctionConcurrency
    function:{FunctionName|function}: GetFunctionEventInvokeConfig PutFunctionEventInvokeConfig
    function:{FunctionName|function}: UpdateFunctionEventInvokeConfig DeleteFunctionEventInvokeConfig
    function:{FunctionName|function}: ListFunctionEventInvokeConfigs CreateFunctionUrlConfig GetFunctionUrlConfig
    function:{FunctionName|function}: UpdateFunctionUrlConfig DeleteFunctionUrlConfig ListFunctionUrlConfigs
    function:{FunctionName|function}: GetProvisionedConcurrencyConfig PutProvisionedConcurrencyConfig
    function:{FunctionName|function}: DeleteProvisionedConcurrencyConfig ListProvisionedConcurrencyConfigs
    function:{FunctionName|function}: GetRuntimeManagementConfig PutRuntimeManagementConfig
    function:{FunctionName|function}: GetFunctionRecursionConfig PutFunctionRecursionConfig
    function:{FunctionName|function}: GetFunctionCodeSigningConfig DeleteFunctionCodeSigningConfig
    function:{FunctionName|function}: GetFunctionScalingConfig PutFunctionScalingConfig ListDurableExecutionsByFunction
    function:{FunctionName|function} {CodeSigningConfigArn}: PutFunctionCodeSigningConfig
    {CodeSigningConfigArn}: GetCodeSigningConfig UpdateCodeSigningConfig DeleteCodeSigningConfig
    {CodeSigningConfigArn}: ListFunctionsByCodeSigningConfig
    {DurableExecutionArn}: CheckpointDurableExecution GetDurableExecution GetDurableExecutionHistory
    {DurableExecutionArn}: GetDurableExecutionState StopDurableExecution
    {ResourceArn}: GetResourcePolicy PutResourcePolicy DeleteResourcePolicy
    capacity-provider:{CapacityProviderName}: CreateCapacityProvider DeleteCapacityProvider GetCapacityProvider
    capacity-provider:{CapacityProviderName}: UpdateCapacityProvider ListFunctionVersionsByCapacityProvider
    event-source-mapping:{UUID}: GetEventSourceMapping UpdateEventSourceMapping DeleteEventSourceMapping
    layer:{LayerName}: PublishLayerVersion
    layer:{LayerName}:{VersionNumber}: GetLayerVersion DeleteLayerVersion AddLayerVersionPermission
    layer:{LayerName}:{VersionNumber}: GetLayerVersionPolicy RemoveLayerVersionPermission
    {Resource}: ListTags TagResource UntagResource
"""
_AUTO_SCALING = """
    {AutoScalingGroupName|group}: SetDesiredCapacity UpdateAutoScalingGroup CreateAutoScalingGroup
    {AutoScalingGroupName|group}: DeleteAutoScalingGroup AttachInstances AttachLoadBalancers
    {AutoScalingGroupName|group}: AttachLoadBalancerTargetGroups AttachTrafficSources DetachInstances
    {AutoScalingGroupName|group}: DetachLoadBalancers DetachLoadBalancerTargetGroups DetachTrafficSources
    {AutoScalingGroupName|group}: BatchDeleteScheduledAction BatchPutScheduledUpdateGroupAction CancelInstanceRefresh
    {AutoScalingGroupName|group}: CompleteLifecycleAction DeleteLifecycleHook DeleteNotificationConfiguration
    {AutoScalingGroupName|group}: DeletePolicy DeleteScheduledAction DeleteWarmPool DisableMetricsCollection
    {AutoScalingGroupName|group}: EnableMetricsCollection EnterStandby ExecutePolicy ExitStandby PutLifecycleHook
    {AutoScalingGroupName|group}: PutNotificationConfiguration PutScalingPolicy PutScheduledUpdateGroupAction
    {AutoScalingGroupName|group}: PutWarmPool RecordLifecycleActionHeartbeat ResumeProcesses RollbackInstanceRefresh
    {AutoScalingGroupName|group}: SetInstanceProtection StartInstanceRefresh SuspendProcesses LaunchInstances
    {InstanceId|group_of_instance}: SetInstanceHealth TerminateInstanceInAutoScalingGroup
    {Tags[].ResourceId|group}: CreateOrUpdateTags DeleteTags
    launchConfiguration:*:launchConfigurationName/{LaunchConfigurationName}: CreateLaunchConfiguration
    launchConfiguration:*:launchConfigurationName/{LaunchConfigurationName}: DeleteLaunchConfiguration
"""
_LOGS = """
    log-group:{logGroupName}:log-stream:{logStreamName}: CreateLogStream DeleteLogStream PutLogEvents
    log-group:{logGroupName,logGroupIdentifier|log_group}:log-stream:{logStreamName}: GetLogEvents
    log-group:{logGroupName,logGroupIdentifier|log_group}:log-stream:: DescribeLogStreams FilterLogEvents
    log-group:{logGroupName,logGroupIdentifier|log_group}:log-stream:: GetLogGroupFields
    log-group:{logGroupName}:log-stream:: CreateLogGroup DeleteLogGroup PutRetentionPolicy DeleteRetentionPolicy
    log-group:{logGroupName}:log-stream:: PutMetricFilter DeleteMetricFilter DescribeMetricFilters
    log-group:{logGroupName}:log-stream:: PutSubscriptionFilter DeleteSubscriptionFilter DescribeSubscriptionFilters
    log-group:{logGroupName}:log-stream:: AssociateKmsKey DisassociateKmsKey CreateExportTask
    log-group:{logGroupName,logGroupNames[],logGroupIdentifiers[]|log_group}:log-stream:: StartQuery
    log-group:{logGroupIdentifier|log_group}:log-stream:: GetDataProtectionPolicy PutDataProtectionPolicy
    log-group:{logGroupIdentifier|log_group}:log-stream:: DeleteDataProtectionPolicy GetTransformer PutTransformer
    log-group:{logGroupIdentifier|log_group}:log-stream:: DeleteTransformer PutLogGroupDeletionProtection
    log-group:{logGroupIdentifiers[]|log_group}:log-stream:: StartLiveTail
    log-group:{logGroupName}: ListTagsLogGroup TagLogGroup UntagLogGroup
    {resourceArn}: ListTagsForResource TagResource UntagResource
"""
_CLOUDWATCH = f"""
    alarm:{{AlarmName}}: PutMetricAlarm PutCompositeAlarm SetAlarmState DescribeAlarmHistory
    alarm:{{AlarmNames[]}}: DeleteAlarms DescribeAlarms EnableAlarmActions DisableAlarmActions
    arn:{PARTITION}:cloudwatch::{ACCOUNT}:dashboard/{{DashboardName}}: GetDashboard PutDashboard
    arn:{PARTITION}:cloudwatch::{ACCOUNT}:dashboard/{{DashboardNames[]}}: DeleteDashboards
    insight-rule/{{RuleName}}: PutInsightRule GetInsightRuleReport
    insight-rule/{{RuleNames[]}}: DeleteInsightRules DisableInsightRules EnableInsightRules
    metric-stream/{{Name}}: PutMetricStream GetMetricStream DeleteMetricStream
    metric-stream/{{Names[]}}: StartMetricStreams StopMetricStreams
    {{ResourceARN}}: ListTagsForResource TagResource UntagResource
"""
_SNS = """
    {TopicArn,TargetArn}: Publish
    Publish@{TopicArn}: PublishBatch
    {TopicArn}: AddPermission ConfirmSubscription DeleteTopic GetTopicAttributes ListSubscriptionsByTopic
    {TopicArn}: RemovePermission SetTopicAttributes Subscribe
    {SubscriptionArn|topic}: GetSubscriptionAttributes SetSubscriptionAttributes Unsubscribe
    {ResourceArn}: GetDataProtectionPolicy PutDataProtectionPolicy ListTagsForResource TagResource UntagResource
    {Name}: CreateTopic
"""
_SQS = """
    {QueueUrl|queue}: AddPermission ChangeMessageVisibility DeleteMessage DeleteQueue GetQueueAttributes ListQueueTags
    {QueueUrl|queue}: ListDeadLetterSourceQueues PurgeQueue ReceiveMessage RemovePermission SendMessage
    {QueueUrl|queue}: SetQueueAttributes TagQueue UntagQueue
    SendMessage@{QueueUrl|queue}: SendMessageBatch
    DeleteMessage@{QueueUrl|queue}: DeleteMessageBatch
    ChangeMessageVisibility@{QueueUrl|queue}: ChangeMessageVisibilityBatch
    {QueueName}: CreateQueue GetQueueUrl
    {SourceArn}: StartMessageMoveTask ListMessageMoveTasks
"""
_KMS = """
    {KeyId|key}: CancelKeyDeletion CreateGrant DeleteImportedKeyMaterial DeriveSharedSecret DescribeKey DisableKey
    {KeyId|key}: DisableKeyRotation EnableKey EnableKeyRotation Encrypt GenerateDataKey GenerateDataKeyPair
    {KeyId|key}: GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac GetKeyPolicy
    {KeyId|key}: GetKeyRotationStatus GetParametersForImport GetPublicKey ImportKeyMaterial ListGrants ListKeyPolicies
    {KeyId|key}: ListKeyRotations ListResourceTags PutKeyPolicy ReplicateKey RevokeGrant RotateKeyOnDemand
    {KeyId|key}: ScheduleKeyDeletion Sign TagResource UntagResource UpdateKeyDescription UpdatePrimaryRegion Verify
    {KeyId|key}: VerifyMac RetireGrant GetKeyLastUsage
    key/{CiphertextBlob|key_of_ciphertext}: Decrypt
    ReEncryptFrom@key/{CiphertextBlob|key_of_ciphertext} ReEncryptTo@{DestinationKeyId|key}: ReEncrypt
    {AliasName} {TargetKeyId|key}: CreateAlias UpdateAlias
    {AliasName} {AliasName|key}: DeleteAlias
"""
_STS = """
    {RoleArn}: AssumeRole
"""
_EVENTS = """
    rule/{EventBusName|bus_part}{Name}: PutRule DeleteRule DescribeRule EnableRule DisableRule
    rule/{EventBusName|bus_part}{Rule}: PutTargets RemoveTargets ListTargetsByRule
    event-bus/{Entries[].EventBusName|bus}: PutEvents
    event-bus/{Name}: CreateEventBus DeleteEventBus UpdateEventBus
    event-bus/{Name|bus}: DescribeEventBus
    archive/{ArchiveName} {EventSourceArn}: CreateArchive
    archive/{ArchiveName}: DeleteArchive DescribeArchive UpdateArchive
    replay/{ReplayName} {EventSourceArn}: StartReplay
    replay/{ReplayName}: CancelReplay DescribeReplay
    connection/{Name}/*: CreateConnection DeleteConnection DescribeConnection UpdateConnection DeauthorizeConnection
    api-destination/{Name}/*: CreateApiDestination DeleteApiDestination DescribeApiDestination UpdateApiDestination
    endpoint/{Name}: CreateEndpoint DeleteEndpoint DescribeEndpoint UpdateEndpoint
    {ResourceARN}: ListTagsForResource TagResource UntagResource
"""
_GLUE = """
    catalog: GetDatabases
    catalog database/{Name}: GetDatabase UpdateDatabase
    catalog database/{DatabaseInput.Name}: CreateDatabase
    catalog database/{Name} table/{Name}/* userDefinedFunction/{Name}/*: DeleteDatabase
    catalog database/{DatabaseName}: GetTables
    catalog database/{DatabaseName} table/{DatabaseName}/{Name}: GetTable DeleteTable
    catalog database/{DatabaseName} table/{DatabaseName}/{TableInput.Name}: CreateTable UpdateTable
    catalog database/{DatabaseName} table/{DatabaseName}/{TablesToDelete[]}: BatchDeleteTable
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: GetPartition GetPartitions CreatePartition
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: UpdatePartition DeletePartition
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: BatchCreatePartition BatchDeletePartition
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: BatchGetPartition BatchUpdatePartition
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: GetTableVersion GetTableVersions
    catalog database/{DatabaseName} table/{DatabaseName}/{TableName}: GetPartitionIndexes CreatePartitionIndex
    job/{JobName}: GetJob DeleteJob UpdateJob StartJobRun GetJobRun GetJobRuns BatchStopJobRun
    job/{Name}: CreateJob
    crawler/{Name}: GetCrawler StartCrawler StopCrawler UpdateCrawler DeleteCrawler
    trigger/{Name}: CreateTrigger DeleteTrigger GetTrigger StartTrigger StopTrigger UpdateTrigger
    workflow/{Name}: CreateWorkflow DeleteWorkflow GetWorkflow StartWorkflowRun GetWorkflowRuns
    {ResourceArn}: GetTags TagResource UntagResource
"""
_ATHENA = """
    workgroup/{WorkGroup|workgroup}: StartQueryExecution ListQueryExecutions GetWorkGroup UpdateWorkGroup
    workgroup/{WorkGroup|workgroup}: DeleteWorkGroup CreateNamedQuery ListNamedQueries CreatePreparedStatement
    workgroup/{WorkGroup|workgroup}: GetPreparedStatement DeletePreparedStatement ListPreparedStatements
    workgroup/{WorkGroup|workgroup}: UpdatePreparedStatement BatchGetPreparedStatement StartSession ListSessions
    workgroup/{WorkGroup|workgroup}: CreateNotebook ImportNotebook ListNotebookMetadata
    workgroup/{Name}: CreateWorkGroup
    workgroup/{QueryExecutionId|workgroup_of_execution}: GetQueryExecution GetQueryResults StopQueryExecution
    workgroup/{QueryExecutionId|workgroup_of_execution}: GetQueryRuntimeStatistics
    workgroup/{QueryExecutionIds[]|workgroup_of_execution}: BatchGetQueryExecution
    workgroup/{NamedQueryId|workgroup_of_query}: GetNamedQuery DeleteNamedQuery UpdateNamedQuery
    workgroup/{NamedQueryIds[]|workgroup_of_query}: BatchGetNamedQuery
    datacatalog/{Name}: CreateDataCatalog DeleteDataCatalog GetDataCatalog UpdateDataCatalog
    datacatalog/{CatalogName}: GetDatabase GetTableMetadata ListDatabases ListTableMetadata
    capacity-reservation/{Name}: CreateCapacityReservation CancelCapacityReservation DeleteCapacityReservation
    capacity-reservation/{Name}: GetCapacityReservation UpdateCapacityReservation
    capacity-reservation/{CapacityReservationName}: GetCapacityAssignmentConfiguration
    {ResourceARN}: ListTagsForResource TagResource UntagResource
"""
_ECR = """
    repository/{repositoryName}: BatchCheckLayerAvailability BatchDeleteImage BatchGetImage CompleteLayerUpload
    repository/{repositoryName}: CreateRepository DeleteLifecyclePolicy DeleteRepository DeleteRepositoryPolicy
    repository/{repositoryName}: DescribeImageReplicationStatus DescribeImages DescribeImageScanFindings
    repository/{repositoryName}: DescribeImageSigningStatus GetDownloadUrlForLayer GetLifecyclePolicy
    repository/{repositoryName}: GetLifecyclePolicyPreview GetRepositoryPolicy InitiateLayerUpload ListImages PutImage
    repository/{repositoryName}: PutImageScanningConfiguration PutImageTagMutability PutLifecyclePolicy
    repository/{repositoryName}: SetRepositoryPolicy StartImageScan StartLifecyclePolicyPreview UploadLayerPart
    repository/{repositoryName}: UpdateImageStorageClass
    repository/{repositoryNames[]}: BatchGetRepositoryScanningConfiguration DescribeRepositories
    {resourceArn}: ListTagsForResource TagResource UntagResource
"""
_XRAY = """
    group/{GroupName}/*: CreateGroup
    group/{GroupARN,GroupName}/*: DeleteGroup GetGroup UpdateGroup
    sampling-rule/{SamplingRule.RuleName}: CreateSamplingRule
    sampling-rule/{RuleARN,RuleName}: DeleteSamplingRule
    sampling-rule/{SamplingRuleUpdate.RuleARN,SamplingRuleUpdate.RuleName}: UpdateSamplingRule
    {ResourceARN}: ListTagsForResource TagResource UntagResource
"""
_SCHEDULER = """
    schedule/{GroupName|schedule_group}/{Name}: CreateSchedule DeleteSchedule GetSchedule UpdateSchedule
    schedule-group/{Name}: CreateScheduleGroup DeleteScheduleGroup GetScheduleGroup
    {ResourceArn}: ListTagsForResource TagResource UntagResource
"""
_IAM = """
    {RoleName|role}: AttachRolePolicy CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy
    {RoleName|role}: DetachRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies ListInstanceProfilesForRole
    {RoleName|role}: ListRolePolicies ListRoleTags PutRolePermissionsBoundary PutRolePolicy TagRole UntagRole
    {RoleName|role}: UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription DeleteServiceLinkedRole
    role/aws-service-role/{AWSServiceName}/{AWSServiceName|linked_role}: CreateServiceLinkedRole
    instance-profile/{InstanceProfileName}: AddRoleToInstanceProfile CreateInstanceProfile DeleteInstanceProfile
    instance-profile/{InstanceProfileName}: GetInstanceProfile RemoveRoleFromInstanceProfile
    instance-profile/{InstanceProfileName}: ListInstanceProfileTags TagInstanceProfile UntagInstanceProfile
    policy/{PolicyName}: CreatePolicy
    {PolicyArn}: CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion ListEntitiesForPolicy
    {PolicyArn}: ListPolicyTags ListPolicyVersions SetDefaultPolicyVersion TagPolicy UntagPolicy
    user/{UserName}: CreateUser DeleteUser GetUser CreateAccessKey DeleteAccessKey ListAccessKeys AttachUserPolicy
    user/{UserName}: DetachUserPolicy PutUserPolicy DeleteUserPolicy GetUserPolicy ListUserPolicies
    user/{UserName}: ListAttachedUserPolicies
"""
_EC2 = """
    instance/{InstanceIds[]}: StartInstances StopInstances RebootInstances TerminateInstances
"""

SERVICES: Mapping[str, Service] = {
    "athena": Service("athena", ("athena",), _ATHENA),
    "autoscaling": Service("autoscaling", ("autoscaling",), _AUTO_SCALING),
    "batch": Service("batch", ("batch",), _BATCH),
    "ec2": Service("ec2", ("ec2",), _EC2),
    "ecr": Service("ecr", ("ecr",), _ECR),
    "elasticmapreduce": Service("elasticmapreduce", ("emr",), _EMR),
    "events": Service("events", ("events",), _EVENTS),
    "glue": Service("glue", ("glue",), _GLUE),
    "iam": Service("iam", ("iam",), _IAM),
    "kms": Service("kms", ("kms",), _KMS),
    "lambda": Service("lambda", ("lambda",), _LAMBDA),
    "logs": Service("logs", ("logs",), _LOGS),
    "monitoring": Service("cloudwatch", ("cloudwatch",), _CLOUDWATCH),
    "sagemaker": Service("sagemaker", ("sagemaker", "sagemaker-runtime", "sagemaker-metrics"), _SAGEMAKER),
    "scheduler": Service("scheduler", ("scheduler",), _SCHEDULER),
    "sns": Service("sns", ("sns",), _SNS),
    "sqs": Service("sqs", ("sqs",), _SQS),
    "states": Service("states", ("stepfunctions",), _STATES),
    "sts": Service("sts", ("sts",), _STS),
    "xray": Service("xray", ("xray",), _XRAY),
}
"""By the name that requests are signed for. S3 has a module of its own: its actions differ from its operations."""


def read_table(service: Service) -> dict[str, list[Asked]]:
    """What each operation of a service asks for."""
    found: dict[str, list[Asked]] = {}
    for line in filter(None, map(str.strip, service.lines.splitlines())):
        resources, _, operations = line.rpartition(": ")
        for operation in operations.split():
            found.setdefault(operation, []).extend(_asked(service, operation, one) for one in resources.split())
    return found


def _asked(service: Service, operation: str, written: str) -> Asked:
    before, at, after = written.partition("@")
    action, resource = (before, after) if at else (operation, written)
    return Asked(f"{service.prefix}:{action}", resource.removesuffix("?"), resource.endswith("?"))

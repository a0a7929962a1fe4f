"""Settings of the jobs: those of the uploader, and what S3's requests cost."""

from pydantic import Field

from services.uploader.settings import UploaderSettings


class JobSettings(UploaderSettings):
    """Variables of `spillway-uploader replay`, `verify` and `redrive`, beside the uploader's."""

    s3_put_price: float = Field(default=0.005, ge=0, description="Price of 1,000 PUTs, in S3_PRICE_CURRENCY")
    s3_get_price: float = Field(default=0.0004, ge=0, description="Price of 1,000 GETs or HEADs")
    s3_list_price: float = Field(default=0.005, ge=0, description="Price of 1,000 LISTs")
    s3_price_currency: str = Field(default="USD", pattern=r"^[A-Za-z]{1,8}$", description="Of the three prices")
    s3_price_date: str = Field(
        default="2025-01, S3 Standard in us-east-1", description="When and where the prices are from, for the report"
    )

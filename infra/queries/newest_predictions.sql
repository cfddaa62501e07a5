-- The newest predictions of each ticker in today's session, one for each horizon. Of two runs that forecast the same bar,
-- the later one counts.
SELECT ticker, as_of, horizon_min, last_price, predicted_price, price_p10, price_p90, predicted_return, model_id, produced_at
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY ticker ORDER BY as_of DESC, produced_at DESC) AS age
    FROM "${database}"."${table}"
    WHERE dt = CAST(CAST(current_timestamp AT TIME ZONE 'America/New_York' AS date) AS varchar)
) AS today
WHERE age = 1
ORDER BY ticker, horizon_min
